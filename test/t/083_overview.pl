
# The view overview at psql: no line is wider than 120 columns and none is
# wrapped, in databases of each kind of encoding and for clients of each kind,
# with names and errors from all over Unicode.  And a task that runs says so.

use strict;
use warnings;

use Encode qw(decode_utf8 encode_utf8);
use FindBin;
use lib $FindBin::RealBin;
use IPC::Run;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use TaskshedTest;
use Test::More;

# Texts by their code points: accented and wide letters, marks of no width,
# controls, and what has another width in another encoding.
my @latin    = qw(78 61 e9 85 9b a 61.a.e9 61.a0);
my @japanese = qw(78 61 6f22 ff76 3b1 439 61.6f22 a);
my @all      = (
	@latin, @japanese,
	qw(61.301 301 1f600 1f468.200d.1f469 d 9 1b.5b.41 7f 627.644 202e.61 200b ff21 2026
	  10ffff 6f22.a.61 31.6f22 e01.e31 2028.61 1b));

# Databases, their encodings, what is in them, and clients that have all of its
# characters.  A client without an encoding gets bytes.
my @databases = (
	[ 'everything', 'UTF8',      \@all,      qw(UTF8 SQL_ASCII GB18030) ],
	[ 'latin',      'UTF8',      \@latin,    qw(LATIN1 LATIN9) ],
	[ 'japanese',   'UTF8',      \@japanese, qw(EUC_JP SJIS) ],
	[ 'latin1',     'LATIN1',    \@latin,    qw(LATIN1 UTF8 SQL_ASCII) ],
	[ 'euc_jp',     'EUC_JP',    \@japanese, qw(EUC_JP UTF8 SJIS SQL_ASCII) ],
	[ 'bytes',      'SQL_ASCII', \@all,      qw(SQL_ASCII UTF8) ]);

# How many columns a line takes, by another rule than the server's: that of Perl.
sub width
{
	my ($line) = @_;
	my $wide = () =
	  $line =~ /[\p{East_Asian_Width=W}\p{East_Asian_Width=F}]/g;
	my $none = () = $line =~ /[\p{Mn}\p{Me}\p{Cf}]/g;

	return length($line) + $wide - $none;
}

my $node = taskshed_node('overview', initdb => ['--no-locale']);

$node->safe_psql('postgres', 'CREATE ROLE overview_of_somebody LOGIN');
foreach my $database (@databases)
{
	my ($name, $encoding, $texts, @clients) = @$database;
	my $values = '';

	$node->safe_psql('postgres',
		"CREATE DATABASE $name ENCODING '$encoding' LOCALE 'C' TEMPLATE template0"
	);
	taskshed_database($node, $name);

	# Each of them repeated, up to the end of the column, beyond it, and far beyond
	foreach my $text (@$texts)
	{
		my $unit = join '', map { chr hex } split /\./, $text;

		foreach my $n (1, 7, 8, 11, 12, 23, 24, 25, 80)
		{
			$values .=
				($values eq '' ? '' : ', ')
			  . "('$text $n ', '"
			  . $unit x $n . "')";
		}
	}
	$node->safe_psql(
		$name,
		encode_utf8(
			qq{
		SET client_encoding = 'UTF8';
		CREATE TABLE texts (name text, value text);
		INSERT INTO texts VALUES $values;
		SELECT taskshed.add_task('note', '2100-01-01', '{"what": "x"}', task_id => id, owner => 'overview_of_somebody')
		FROM (SELECT DISTINCT value FROM texts UNION SELECT name || value FROM texts) t (id)
		WHERE length(id) <= 255;
		UPDATE _taskshed.alarm a SET last_run_at = '2026-01-01', last_error = t.task_id || repeat(t.task_id, 5)
		FROM _taskshed.task t WHERE t.id = a.id}));

	my $rows =
	  $node->safe_psql($name, 'SELECT count(*) FROM taskshed.overview');
	cmp_ok($rows, '>', 100, "$rows tasks in $name");

	foreach my $client (@clients)
	{
		local $ENV{PGCLIENTENCODING} = $client;
		my ($out, $err);

		IPC::Run::run(
			[
				'psql', '-X',
				'-d',   $node->connstr($name),
				'-c',   'SELECT * FROM taskshed.overview'
			],
			'>'  => \$out,
			'2>' => \$err) or die $err;

		# (under the head, then the rows, their number, and an empty line)
		my @lines = split /\n/, $out, -1;

		like($lines[1], qr/^[-+]{120}$/, "$name for $client");
		is(@lines - 5, $rows, 'each row has a line');
		is((grep { /\r|\t|\\[xu]/ } @lines),
			0, 'and nothing that psql would rather spell');
		like(
			$out,
			$client eq 'UTF8' && $encoding =~ /UTF8|ASCII/
			? qr/x{23}\xE2\x80\xA6 +\|/
			: qr/x{21}[.]{3} +\|/,
			'what is cut says so');
		if ($client eq 'UTF8')
		{
			is( join("\n",
					grep { width($_) > 120 } split /\n/,
					decode_utf8($out)),
				'',
				'no line is too wide');
		}
	}
}

# A task that runs, with the time that the run is for.
my $holder = session($node);
$holder->query('SELECT pg_advisory_lock(1)');
query(
	q{SET timezone = 'UTC'; }
	  . add_note(
		'held', q{run_at => '2026-01-01 UTC', every => '1 day'}, 'hold'));
await_blocked($node, 1);
is( query(
		q{SET timezone = 'Asia/Tokyo'; SELECT task_id, next_run, state, last_run, last_error FROM taskshed.overview}
	),
	'held|2026-01-01 09:00:00|running||',
	'it is running');
query(q{SELECT taskshed.pause_task('held')});
is(query(q{SELECT task_id, next_run, state FROM taskshed.overview}),
	'held||running', 'and will not run again, paused');
$holder->query('SELECT pg_advisory_unlock(1)');
await_state($node, 'held', 'paused');
is( query(
		q{SELECT last_run = to_char(last_run_at, 'YYYY-MM-DD HH24:MI:SS'), next_run IS NULL FROM taskshed.overview, taskshed.tasks}
	),
	't|t',
	'when it has run');

$holder->quit;
$node->stop;
done_testing();
