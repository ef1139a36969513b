# Runs the examples of a page in order, as a reader would paste them into psql:
#
#   ini   is added to postgresql.conf, and the server restarted;
#   sql   is run by psql; \connect and SET ROLE stay in force for the blocks that follow;
#   text  after an sql block is what psql prints for it.  A lone query that changes nothing is
#         repeated until it prints that: the reader would look again, too.  If the text begins
#         with ERROR, the block fails with that;
#   log   is a line that the server log gets;
#   sh    is not run here;
#   pgsql is run by 065_pg_cron.pl, since it needs pg_cron.
#
# In an sql block, "-- value" behind a statement is what it returns; then each statement that
# returns anything has one.  In outputs "…" stands for anything, and blanks, dashes and psql's
# "(1 row)" do not matter.

package TaskshedPages;

use strict;
use warnings;
use utf8;

use FindBin;
use lib $FindBin::RealBin;
use Encode ();
use Exporter 'import';
use IPC::Run ();
use PostgreSQL::Test::Utils;
use TaskshedMarkdown qw(read_page blocks);
use Test::More;
use Time::HiRes qw(usleep);

our @EXPORT_OK = qw(run_page run_psql normal pattern);

# Output as it is compared: the layout does not matter.
sub normal
{
	my ($text) = @_;
	my @lines;

	foreach (split /\n/, $text)
	{
		next if /^[-+]*$/ || /^\(\d+ rows?\)$/;
		s/\s+/ /g;
		s/^ | $//g;
		push @lines, $_;
	}
	return join "\n", @lines;
}

# The pattern that an expected text stands for.
sub pattern
{
	my ($text)  = @_;
	my $pattern = join '.*', map { quotemeta } split /…/, normal($text), -1;

	return qr/\A$pattern\z/;
}

# Run SQL by psql where the reader is: $at has the node, the database, the user who is connected and
# the role that is set.  Return whether all went well, the output, and the messages.
sub run_psql
{
	my ($at, $sql, @options) = @_;
	my @command = ('psql', '-X', '-q', '-v', 'ON_ERROR_STOP=1', @options);
	my ($out, $err) = ('', '');
	my ($ok, $in);

	$sql = "SET ROLE $at->{role};\n$sql" if defined $at->{role};
	$in  = Encode::encode('UTF-8', $sql);
	push @command, '-h', $at->{node}->host, '-p', $at->{node}->port;
	push @command, '-U', $at->{user},       '-d', $at->{database};
	$ok = IPC::Run::run(\@command, '<', \$in, '>', \$out, '2>', \$err,
		IPC::Run::timeout($PostgreSQL::Test::Utils::timeout_default));
	return ($ok, Encode::decode('UTF-8', $out),
		Encode::decode('UTF-8', $err));
}

# Where is the reader after this?
sub remember_place
{
	my ($at, $sql) = @_;

	foreach (split /\n/, $sql)
	{
		if (/^\\(?:c|connect)[ \t]+(\S+)(?:[ \t]+(\S+))?/)
		{
			$at->{database} = $1 if $1 ne '-';
			$at->{user}     = $2 if defined $2;
			undef $at->{role};
		}
		elsif (/^SET ROLE (\w+);/) { $at->{role} = $1 }
		elsif (/^RESET ROLE;/)     { undef $at->{role} }
	}
	return;
}

# Is this a lone query, which can be repeated?
sub only_looks
{
	my ($sql) = @_;

	$sql =~ s/^(?:\\connect|SET ROLE|RESET ROLE).*\n//mg;
	return
		 $sql =~ /\ASELECT\b[^;]*;\s*\z/
	  && $sql !~ /taskshed\.(?!fetch_)\w+\(/
	  && $sql !~ /pg_terminate_backend/;
}

sub test_sql
{
	my ($at, $block, $expected) = @_;
	my $name   = "line $block->{line}";
	my $sql    = $block->{text};
	my @values = $sql =~ /;[ \t]+--[ ](.*?)[ ]*$/mg;
	my ($ok, $out, $err);

	if (defined $expected && $expected =~ /\AERROR:/)
	{
		my $pattern = pattern($expected);

		($ok, $out, $err) = run_psql($at, $sql);
		ok(!$ok, "$name fails");
		like(normal($err), $pattern, "$name fails with that error");
	}
	elsif (defined $expected)
	{
		my $pattern  = pattern($expected);
		my $deadline = time + $PostgreSQL::Test::Utils::timeout_default;

		for (;;)
		{
			($ok, $out, $err) = run_psql($at, $sql);
			last
			  if !$ok
			  || normal($out) =~ $pattern
			  || !only_looks($sql)
			  || time >= $deadline;
			usleep(100_000);
		}
		is($err, '', "$name runs");
		like(normal($out), $pattern, "$name prints that");
	}
	else
	{
		($ok, $out, $err) = run_psql($at, $sql, @values ? ('-A', '-t') : ());
		is($err, '', "$name runs");
		is_deeply([ split /\n/, $out ], \@values, "$name returns that")
		  if @values;
	}
	remember_place($at, $sql);
	return;
}

sub test_ini
{
	my ($at, $block) = @_;
	my $name = "line $block->{line}";

	$at->{node}->append_conf('postgresql.conf', $block->{text});
	$at->{node}->restart;
	while ($block->{text} =~ /^([\w.]+)\s*=\s*'?([^'\n]*)/mg)
	{
		is($at->{node}->safe_psql('postgres', "SHOW $1"), $2,
			"$name sets $1");
	}
	return;
}

sub test_log
{
	my ($at, $block) = @_;
	my $pattern = join '.*', map { quotemeta } split /…/,
	  $block->{text} =~ s/\n\z//r, -1;
	my $deadline = time + $PostgreSQL::Test::Utils::timeout_default;
	my $found;

	until ($found = slurp_file($at->{node}->logfile) =~ /$pattern$/m)
	{
		last if time >= $deadline;
		usleep(100_000);
	}
	ok($found, "line $block->{line} is in the server log");
	return;
}

# Run the blocks of a page, from where the reader is.  Return whether all are as they should be; what
# follows a block that is not would fail for want of what it was to do, so it is not run.
sub run_page
{
	my ($at, $file) = @_;
	my @blocks = blocks(read_page($file));

	for (my $i = 0; $i < @blocks; $i++)
	{
		my $block = $blocks[$i];
		my $next  = $blocks[ $i + 1 ];
		my $expected;

		# An output stands right below what prints it.
		$expected = $next->{text}
		  if $next
		  && $next->{language} eq 'text'
		  && $next->{line} == $block->{end} + 1;

		if    ($block->{language} eq 'pgsql') { $i++ if defined $expected }
		elsif ($block->{language} eq 'sql')
		{
			test_sql($at, $block, $expected);
		}
		elsif ($block->{language} eq 'ini') { test_ini($at, $block) }
		elsif ($block->{language} eq 'log') { test_log($at, $block) }
		elsif ($block->{language} eq 'text')
		{
			my $previous = $blocks[ $i - 1 ];

			ok( $i > 0
				  && $previous->{language} eq 'sql'
				  && $previous->{end} + 1 == $block->{line},
				"line $block->{line} is the output of the block above it");
		}
		else
		{
			is($block->{language}, 'sh',
				"line $block->{line} is a block of a known kind");
		}
		return 0 if !Test::More->builder->is_passing;
	}
	return 1;
}

1;
