# docs/troubleshooting.md cannot go stale: each message that it explains is one that taskshed has.
#
# What is in backticks in the first column of a table is a message if it is more than one word, unless
# it is a command, whose first word is in capitals.  It must be, from its beginning to its end, a text
# of the sources or of the extension's script, with "…" or some words in place of what is put in.
#
# Those of the server are in two lists here: what it says to a call that is wrong, which must be in the
# output of a regression test, so that some server has said so; and others.
#
# This needs no server, and can be run by itself: perl test/t/082_troubleshooting.pl

use strict;
use warnings;
use utf8;
use open ':std', ':encoding(UTF-8)';

use Test::More;

my $page = 'docs/troubleshooting.md';

# Messages of the server's own, which the page explains as well: those to mistakes,
my $mistakes = 'expected/mistakes.out';
my @answers  = (
	'date/time field value out of range: "0 3 * * *"',
	'function add_task(…) does not exist',
	'function taskshed.add_task(…) does not exist',
	'invalid input syntax for type interval: "0 3 * * *"',
	'invalid input syntax for type json',
	'invalid input syntax for type timestamp with time zone: "1 hour"',
	'malformed array literal: "…"');

# and others.
my @of_server = (
	'canceling statement due to user request',
	'could not access file "taskshed": …',
	'database "…" is being accessed by other users',
	'extension "taskshed" is not available',
	'relation "…" does not exist',
	'schema "taskshed" does not exist',
	'still waiting for backend with PID … to accept ProcSignalBarrier',
	'There are … prepared transactions using the database.',
	'… cannot run inside a transaction block');

sub slurp
{
	my ($file) = @_;

	open my $fh, '<:encoding(UTF-8)', $file or die "$file: $!";
	local $/ = undef;
	return scalar <$fh>;
}

# The texts of a C file: literals next to each other are one, and so is what a macro puts between
# two.
sub texts_of_c
{
	my ($code) = @_;
	my $literal = qr/"(?:[^"\\\n]|\\.)*"/;
	my @texts;

	$code =~ s{($literal)|/\*.*?\*/|//[^\n]*}{$1 // ' '}gse;
	while ($code =~ /($literal(?:\s*(?:\b[A-Z]\w*\s*)?$literal)*)/g)
	{
		my $text   = $1;
		my $joined = '';

		while ($text =~ /\G\s*([A-Z]\w*)?\s*"((?:[^"\\]|\\.)*)"/g)
		{
			$joined .= '%d' if defined $1;
			$joined .= $2;
		}
		push @texts, $joined =~ s/\\(["\\])/$1/gr;
	}
	return @texts;
}

# Those of the script.
sub texts_of_sql
{
	my ($code) = @_;

	$code =~ s{/\*.*?\*/|--[^\n]*}{}gs;
	return map { s/''/'/gr } $code =~ /'((?:[^']|'')*)'/g;
}

# What a text can look like once it is filled in.  Undefined for one that has no two words of its own:
# that could be anything.
sub filled_in
{
	my ($text) = @_;
	my $format = qr/%(?:\d+\$)?[-+ #0-9.*l]*[a-zA-Z]/;
	my $fixed  = join '', split /$format/, $text;

	return if $fixed !~ /\w\s+\w/;
	return join '(?:\w+|[\w ]*…[\w ]*)', map { quotemeta } split /$format/,
	  $text, -1;
}

my @texts = map { texts_of_c(slurp($_)) } glob 'src/*.c src/*/*.c';
cmp_ok(scalar @texts, '>', 500, 'the sources have texts');
my @script = map { texts_of_sql(slurp($_)) } glob 'sql/taskshed--*.sql';
cmp_ok(scalar @script, '>', 100, 'and so does the script');
my @patterns = grep { defined } map { filled_in($_) } @texts, @script;
my $known    = join '|', @patterns;
$known = qr/\A(?:$known)\z/;

# Were anything a message, this test would not be one.
foreach my $strange ('…', '… …', 'no such thing', 'role "…" has no such task')
{
	ok($strange !~ $known, "\"$strange\" is none");
}

my %quoted;
foreach my $row (grep { /^\|/ } split /\n/, slurp($page))
{
	my (undef, $seen) = split /\s*(?<!\\)\|\s*/, $row;

	foreach my $quote ($seen =~ /`([^`]+)`/g)
	{
		$quoted{$quote} = 1 if $quote =~ /\s/ && $quote !~ /^[A-Z]+\s/;
	}
}
cmp_ok(scalar keys %quoted, '>', 80, 'the page explains messages');
my $answered = slurp($mistakes);
foreach my $message (@answers)
{
	my $answer = join '[^\n]*', map { quotemeta } split /…/, $message, -1;

	like(
		$answered,
		qr/^NOTICE:  .*\b\w{5} $answer$/m,
		"a server says: $message");
}
foreach my $message (@answers, @of_server)
{
	ok(delete $quoted{$message}, "of the server: $message");
}
foreach my $message (sort keys %quoted)
{
	ok($message =~ $known, $message);
}

done_testing();
