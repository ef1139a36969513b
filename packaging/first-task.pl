#!/usr/bin/perl
# packaging/first-task.pl README.md: do what its chapters "Install" and "A first task" say, in one
# session of psql.  For scripts/test-package, which has installed a package in a system where nothing
# but Perl is at hand; so it connects as the user that runs it, to the server that psql finds.
#
# packaging/first-task.pl --ini README.md prints what these chapters add to postgresql.conf.
#
# The blocks mean what test/t/TaskshedPages.pm says they do: "-- value" behind a statement is what it returns,
# a text block right below is what is printed, and a lone query is repeated until it prints that.

use strict;
use warnings;
use utf8;
use open ':std', ':encoding(UTF-8)';

use IPC::Open2  qw(open2);
use Time::HiRes qw(time sleep);

$| = 1;

my $only_ini = @ARGV && $ARGV[0] eq '--ini' && shift;
my $page     = shift or die "usage: $0 [--ini] README.md\n";
my $patience = 30;                                             # seconds
my $marker   = '-- the block is done --';
my (@blocks, %chapters);

# The blocks of the two chapters, each with its language, line, text and what it prints.
open my $in, '<', $page or die "$page: $!\n";
my ($chapter, $block, $end) = ('', undef, 0);
while (<$in>)
{
	if ($block && /^```$/)
	{
		($block, $end) = (undef, $.);
	}
	elsif ($block)
	{
		$$block .= $_;
	}
	elsif (/^## (.*)$/)
	{
		$chapter = $1;
	}
	elsif (/^```(\w*)$/)
	{
		my %new = (language => $1, line => $., text => '');

		$block = \$new{text};
		next if $chapter !~ /^(?:Install|A first task)$/;
		$chapters{$chapter} = 1;
		if ($new{language} eq 'text' && @blocks && $end == $. - 1)
		{
			$block = \$blocks[-1]{prints};
		}
		else
		{
			push @blocks, \%new;
		}
	}
}
close $in;
die "$page lacks one of the two chapters, or their blocks\n"
  if keys %chapters != 2;

if ($only_ini)
{
	print map { $_->{text} } grep { $_->{language} eq 'ini' } @blocks;
	exit;
}

# Output as it is compared: the layout does not matter.
sub normal
{
	my @lines = grep { !/^[-+]*$/ && !/^\(\d+ rows?\)$/ } split /\n/, shift;

	s/\s+/ /g, s/^ | $//g for @lines;
	return join "\n", @lines;
}

my $psql = open2(my $out, my $to, 'exec stdbuf -oL -eL psql -X -q 2>&1');
binmode $_, ':encoding(UTF-8)' for $out, $to;
local $SIG{PIPE} = 'IGNORE';
local $SIG{ALRM} = sub { die "psql does not answer\n" };

# Give something to psql, and return what it prints, errors included.
sub answer
{
	my $answer = '';

	alarm $patience;
	print $to @_, "\n\\echo $marker\n";
	$to->flush;
	while (defined(my $line = <$out>))
	{
		alarm 0;
		return $answer if $line eq "$marker\n";
		$answer .= $line;
	}
	die "psql has ended: $answer\n";
}

my $done = 0;
for my $block (grep { $_->{language} eq 'sql' } @blocks)
{
	my ($sql, $expected) = @$block{qw(text prints)};
	my @values = $sql =~ /;[ \t]+--[ ](.*?)[ ]*$/mg;
	my $alone =
	  $sql =~ /\ASELECT\b[^;]*;\s*\z/ && $sql !~ /taskshed\.(?!fetch_)\w+\(/;
	my $until = time + $patience;
	my ($printed, $fine);

	answer("\\pset tuples_only on\n\\pset format unaligned") if @values;
	for (;;)
	{
		$printed = answer($sql);
		if (defined $expected)
		{
			my $pattern = join '.*', map { quotemeta } split /…/,
			  normal($expected), -1;

			$fine = normal($printed) =~ /\A$pattern\z/;
		}
		else
		{
			$fine = $printed !~
			  /^(?:psql: |\\\w+: )?(?:[Ee]rror|ERROR|FATAL|WARNING|NOTICE):/m;
			$fine &&= join("\n", @values, '') eq $printed if @values;
		}
		last if $fine || !$alone || time > $until;
		sleep 0.1;
	}
	answer("\\pset tuples_only off\n\\pset format aligned") if @values;
	print "---- $page, line $block->{line}\n$sql$printed";
	die "---- this is not what the page says"
	  . (defined $expected ? ":\n$expected" : "\n")
	  if !$fine;
	$done++;
}
close $to;
waitpid $psql, 0;
die "there was nothing to do\n" if !$done;
print "---- $done blocks\n";
