# README.md is true: every block of it is run, in order, as a reader would.
#
#   ini   is added to postgresql.conf, and the server restarted;
#   sql   is run by psql; \connect stays in force for the blocks that follow;
#   text  after an sql block is what psql prints for it.  A lone query that changes nothing is
#         repeated until it prints that: the reader would look again, too.  If the text begins
#         with ERROR, the block fails with that;
#   log   is a line that the server log gets;
#   sh    is not run;
#   pgsql is run by 065_pg_cron.pl, since it needs pg_cron, and the text behind it compared there.
#
# In an sql block, "-- value" behind a statement is what it returns; then each statement that
# returns anything has one.  In outputs "…" stands for anything, and blanks, dashes and psql's
# "(1 row)" do not matter.
#
# What the page says of settings and functions is compared with what there is.  The queries of
# docs/operations.md are run.  The links of all pages lead somewhere, and the pages in src/ list all
# folders and all files that there are.

use strict;
use warnings;
use utf8;
use open ':std', ':encoding(UTF-8)';

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Encode   ();
use IPC::Run ();
use Test::More;
use Time::HiRes qw(usleep);

# The page has a superuser of this name.
$ENV{PGUSER} = 'postgres';

sub read_page
{
	my ($file) = @_;

	open my $fh, '<:encoding(UTF-8)', $file or die "$file: $!";
	local $/ = undef;
	return scalar <$fh>;
}

# The fenced blocks of a page: language, line number and text of each.
sub blocks
{
	my ($page) = @_;
	my @blocks;
	my ($block, $fence);
	my $line = 0;

	foreach (split /\n/, $page)
	{
		$line++;
		if (!$block && /^```(\w*)$/)
		{
			$block = { language => $1, line => $line, text => '', end => 0 };
			push @blocks, $block;
		}
		elsif ($block && /^```$/)
		{
			$block->{end} = $line;
			undef $block;
		}
		elsif ($block)
		{
			$block->{text} .= "$_\n";
		}
	}
	die "a block is not closed" if $block;
	return @blocks;
}

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

my $page = read_page('README.md');
my $node = PostgreSQL::Test::Cluster->new('readme');
my ($database, $role) = ('postgres', 'postgres');

# Run a block of SQL as a reader would paste it into psql.
sub run_psql
{
	my ($sql, @options) = @_;
	my @command = ('psql', '-X', '-q', '-v', 'ON_ERROR_STOP=1', @options);
	my $in      = Encode::encode('UTF-8', $sql);
	my ($out, $err) = ('', '');
	my $ok;

	push @command, '-h', $node->host, '-p', $node->port;
	push @command, '-U', $role,       '-d', $database;
	$ok = IPC::Run::run(\@command, '<', \$in, '>', \$out, '2>', \$err,
		IPC::Run::timeout($PostgreSQL::Test::Utils::timeout_default));

	return ($ok, Encode::decode('UTF-8', $out),
		Encode::decode('UTF-8', $err));
}

sub remember_connect
{
	my ($sql) = @_;

	while ($sql =~ /^\\(?:c|connect)[ \t]+(\S+)(?:[ \t]+(\S+))?/mg)
	{
		$database = $1 if $1 ne '-';
		$role     = $2 if defined $2;
	}
	return;
}

# Is this a lone query, which can be repeated?
sub only_looks
{
	my ($sql) = @_;

	$sql =~ s/^\\connect.*\n//mg;
	return
		 $sql =~ /\ASELECT\b[^;]*;\s*\z/
	  && $sql !~ /taskshed\.(?!fetch_)\w+\(/
	  && $sql !~ /pg_terminate_backend/;
}

sub test_sql
{
	my ($block, $expected) = @_;
	my $name   = "line $block->{line}";
	my $sql    = $block->{text};
	my @values = $sql =~ /;[ \t]+--[ ](.*?)[ ]*$/mg;
	my ($ok, $out, $err);

	if (defined $expected && $expected =~ /\AERROR:/)
	{
		my $pattern = pattern($expected);

		($ok, $out, $err) = run_psql($sql);
		ok(!$ok, "$name fails");
		like(normal($err), $pattern, "$name fails with that error");
	}
	elsif (defined $expected)
	{
		my $pattern  = pattern($expected);
		my $deadline = time + $PostgreSQL::Test::Utils::timeout_default;

		for (;;)
		{
			($ok, $out, $err) = run_psql($sql);
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
		($ok, $out, $err) = run_psql($sql, @values ? ('-A', '-t') : ());
		is($err, '', "$name runs");
		is_deeply([ split /\n/, $out ], \@values, "$name returns that")
		  if @values;
	}
	remember_connect($sql);
	return;
}

sub test_ini
{
	my ($block) = @_;
	my $name = "line $block->{line}";

	$node->append_conf('postgresql.conf', $block->{text});
	$node->restart;
	while ($block->{text} =~ /^([\w.]+)\s*=\s*'?([^'\n]*)/mg)
	{
		is($node->safe_psql('postgres', "SHOW $1"), $2, "$name sets $1");
	}
	return;
}

sub test_log
{
	my ($block) = @_;
	my $pattern = join '.*', map { quotemeta } split /…/,
	  $block->{text} =~ s/\n\z//r, -1;
	my $deadline = time + $PostgreSQL::Test::Utils::timeout_default;
	my $found;

	until ($found = slurp_file($node->logfile) =~ /$pattern$/m)
	{
		last if time >= $deadline;
		usleep(100_000);
	}
	ok($found, "line $block->{line} is in the server log");
	return;
}

# A bare server, as it is before somebody has read the page.
$node->init(extra => [ '-U', 'postgres' ]);
$node->start;

my ($rc, $stdout, $stderr) =
  $node->psql('postgres', 'CREATE EXTENSION taskshed');
isnt($rc, 0, 'without preload the extension is refused');
like(
	$stderr,
	qr/HINT: .*shared_preload_libraries = 'taskshed'/,
	'and the hint says what to do');

my @blocks = blocks($page);
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
	elsif ($block->{language} eq 'sql')   { test_sql($block, $expected) }
	elsif ($block->{language} eq 'ini')   { test_ini($block) }
	elsif ($block->{language} eq 'log')   { test_log($block) }
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

	# What follows would fail for want of what this block was to do.
	if (!Test::More->builder->is_passing)
	{
		done_testing();
		exit 1;
	}
}

# The tables of settings: all there are, with their defaults, of which this
# server has changed none.
my %defaults = $page =~ /^\| `(taskshed\.\w+)` \| `(-?\w+)` \|/mg;
foreach my $name (sort keys %defaults)
{
	is($node->safe_psql('shop', "SHOW $name"),
		$defaults{$name}, "the default of $name");
}
is( $node->safe_psql(
		'shop', q{
		SELECT string_agg(name, ' ' ORDER BY name COLLATE "C") FROM pg_settings
		WHERE name ~ '^taskshed\.'}),
	join(' ', sort keys %defaults),
	'all settings are described');

# All names in the schema that the page mentions, wherever it does.
my %there = map { $_ => 1 } split /\n/, $node->safe_psql(
	'shop', q{
	SELECT proname FROM pg_proc WHERE pronamespace = 'taskshed'::regnamespace
	UNION SELECT relname FROM pg_class WHERE relnamespace = 'taskshed'::regnamespace
	UNION SELECT split_part(name, '.', 2) FROM pg_settings WHERE name ~ '^taskshed\.'}
);
my %mentioned = map { $_ => 1 } $page =~ /\btaskshed\.(\w+)/g;
my ($peers) = $page =~ /^(\| Python \|.*?)\n\n/ms;
foreach my $row (split /\n/, $peers)
{
	my (undef, undef, $sql) = split / *\| */, $row;
	my @calls = $sql =~ /(\w+)\(/g;

	@mentioned{@calls} = (1) x @calls;
}
foreach my $name (sort keys %mentioned)
{
	ok($there{$name}, "taskshed.$name exists");
}

# The queries of docs/operations.md
($database, $role) = ('shop', 'postgres');
foreach my $block (grep { $_->{language} eq 'sql' }
	blocks(read_page('docs/operations.md')))
{
	my ($ok, $out, $err) = run_psql($block->{text});

	ok($ok && $err eq '', "docs/operations.md, line $block->{line}")
	  or diag($err);
}

# A page as it is read, without its fenced blocks.
sub prose
{
	my ($file) = @_;

	return read_page($file) =~ s/^```.*?^```$//msgr;
}

# What a link can point to in a page.
sub anchors
{
	my ($file) = @_;
	my %anchors;

	foreach my $heading (prose($file) =~ /^#+ (.*)$/mg)
	{
		my $anchor = lc $heading;

		$anchor =~ s/[^\w -]//g;
		$anchor =~ tr/ /-/;
		$anchors{$anchor} = 1;
	}
	return \%anchors;
}

# Links of all pages, within a page and to other files.
my @pages = glob '*.md */*.md */*/*.md';
foreach my $file (@pages)
{
	my ($folder) = $file =~ m{^(.*/)?};
	my @dead;

	foreach my $link (prose($file) =~ /\]\(([^)]+)\)/g)
	{
		next if $link =~ /^https?:/;
		my ($to, $anchor) = $link =~ /^([^#]*)(?:#(.*))?$/;

		$to = $to eq '' ? $file : ($folder // '') . $to;
		push @dead, $link
		  if !-e $to || (defined $anchor && !anchors($to)->{$anchor});
	}
	is("@dead", '', "the links of $file lead somewhere");
}

# The pages name files of the sources that are there.
foreach my $file (@pages)
{
	my ($folder) = $file =~ m{^(.*)/};
	my @missing = grep {
		my $name = $_;

		!grep { -e "$_/$name" } $folder // '.', '.', 'src',
		  $file =~ m{^docs/} ? glob 'src/*' : ();
	} prose($file) =~ /`([\w\/]+\.[ch])`/g;

	is("@missing", '', "$file names files that there are");
}

# src/README.md lists the folders in the order of the floors, and the README.md of each folder its
# files, neither more nor less.
my ($floors) = read_page('scripts/lint') =~ /^floors=\((.*)\)$/m;
my @folders  = split / /, $floors;
is( join(' ',
		prose('src/README.md') =~ m{^\| \[`(\w+)/`\]\(\1/README\.md\) \|}mg),
	$floors,
	'src/README.md lists the folders in their order');
foreach my $folder ('src', map { "src/$_" } @folders)
{
	my %described =
	  map { $_ => 1 } prose("$folder/README.md") =~ /^\| `(\w+\.[ch])` \|/mg;

	is( join(' ', sort keys %described),
		join(' ', sort map { s{^.*/}{}r } glob "$folder/*.[ch]"),
		"$folder/README.md lists its files");
}

$node->stop;
done_testing();
