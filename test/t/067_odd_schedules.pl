
# Schedules that nobody would write: random bytes, and good ones with something
# changed.  Whatever is given, the answer is times, or an error that says what is
# wrong with it; and it comes at once, also for good ones with a start that
# nobody would think of.
#
# TASKSHED_FUZZ_SEED=n repeats a run, whose seed is printed;
# TASKSHED_FUZZ_CALLS=n makes more or fewer than 100000.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use TaskshedTest;
use Test::More;

my $seed  = $ENV{TASKSHED_FUZZ_SEED}  || int(rand(2**31));
my $calls = $ENV{TASKSHED_FUZZ_CALLS} || 100_000;

srand($seed);
diag("seed: TASKSHED_FUZZ_SEED=$seed");

my $node = taskshed_node('odd_schedules');

# Any byte but 0 is a character here.
$node->safe_psql('postgres',
	q{CREATE DATABASE bytes ENCODING 'SQL_ASCII' LOCALE 'C' TEMPLATE template0}
);
taskshed_database($node, 'bytes');

sub pick
{
	return $_[ rand @_ ];
}

# What good schedules are made of.
my @words = (
	(map { $_, "*/$_", "$_-" . ($_ + 3), "$_,1", "$_/5" } 0 .. 60),
	split ' ', q{
	* ? L $ LW 15W 31W 1w mon-fri fri#2 friL sun#5 7 0 jan-mar DEC @daily @yearly @reboot seconds second
	99999999999999999999 -1 - / , # */ */0 5- -5 5--6 1-2-3 1/2/3 *-5 ** *W L-3 #1 fri# fri#6 fri#0 1#2#3
	mon,,tue});

sub schedule
{
	my $form = rand;

	# random bytes
	return join '', map { chr(1 + rand 255) } 1 .. rand 40 if $form < 0.15;

	# of any length
	return join pick(' ', "\t", '  ', ','),
	  map { pick(@words) } 1 .. rand 400
	  if $form < 0.16;
	my $schedule = join ' ',
	  map { pick(@words) } 1 .. pick(5, 5, 5, 6, 6, rand 9);
	return $schedule if $form < 0.5;

	# a good one, mostly
	$schedule = join ' ', pick('*', '*/7', int(rand 60), '0-30/10'),
	  pick('*', int(rand 24), '9-17'),
	  pick('*', '*', 1 + int(rand 31), 'L', '15W', '1,15'),
	  pick('*', '*', 1 + int(rand 12), 'feb'),
	  pick('*', '*', int(rand 8),      'mon-fri', 'fri#3', 'tueL');
	return $schedule if $form < 0.7;

	# and with something changed
	foreach (1 .. 1 + rand 3)
	{
		my $at = int(rand(1 + length $schedule));

		substr(
			$schedule, $at,
			pick(0,                 0,            1,   2),
			pick(chr(1 + rand 255), pick(@words), ' ', ''));
	}
	return $schedule;
}

my @zones = (
	qw(UTC Europe/Berlin Pacific/Apia Australia/Lord_Howe Africa/Casablanca Antarctica/Troll Asia/Kathmandu GMT EST5EDT),
	'<+167>-167', 'XYZ-3:30:15', 'XXX3YYY,J1/0,J365/23');
my @starts = (
	'infinity',
	'-infinity',
	'4714-11-24 00:00:00+00 BC',
	'294276-12-31 23:59:59.999999+00',
	'2011-12-30 10:00:00+00',
	'1970-01-01',
	'0001-01-01',
	'99999-02-28',
	map {
		sprintf '%d-%02d-%02d %02d:%02d:%02d', 1800 + rand 400, 1 + rand 12,
		  1 + rand 28, rand 24, rand 60,
		  rand 60
	} 1 .. 200);

# As hexadecimal bytes, so that nothing on the way minds them.
my $file = $node->basedir . '/schedules.tsv';
open my $out, '>', $file or die "$file: $!\n";
print $out join("\t", unpack('H*', schedule()), pick(@zones), pick(@starts)),
  "\n"
  foreach 1 .. $calls;
close $out;

$node->safe_psql(
	'bytes', qq{
CREATE TABLE given (n serial, hex text, zone text, start text);
\\copy given (hex, zone, start) FROM '$file'
CREATE TABLE answers (call text, n integer, sqlstate text, message text, took double precision);
});
$node->safe_psql(
	'bytes', q{
CREATE FUNCTION answer(call text, n integer, schedule text, zone text, start timestamptz) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
	began timestamptz := clock_timestamp();
	answer text := 'an answer';
	message text;
	times timestamptz[];
BEGIN
	BEGIN
		IF call = 'next_runs' THEN
			times := ARRAY(SELECT taskshed.next_runs(schedule, zone, after => start, n => 3));
			IF times[1] <= start OR times[2] <= times[1] OR times[3] <= times[2] THEN
				answer := 'out of order';
			END IF;
		ELSIF call = 'describe' THEN
			IF coalesce(taskshed.describe(schedule, zone), '') = '' THEN
				answer := 'nothing';
			END IF;
		ELSE
			PERFORM taskshed.add_task('note', schedule => schedule, timezone => zone, kwargs => '{"what": "x"}',
				task_id => 'odd', paused => true);
		END IF;
	EXCEPTION WHEN OTHERS THEN
		GET STACKED DIAGNOSTICS answer = RETURNED_SQLSTATE, message = MESSAGE_TEXT;
	END;
	INSERT INTO answers VALUES (call, n, answer, message, extract(epoch FROM clock_timestamp() - began));
END $$});

foreach my $call ('next_runs', 'describe', 'add_task')
{
	my $limit = $call eq 'add_task' ? $calls / 10 : $calls;

	$node->safe_psql(
		'bytes', qq{
		SELECT count(answer('$call', n, convert_from(decode(hex, 'hex'), 'SQL_ASCII'), zone, start::timestamptz))
		FROM given WHERE n <= $limit});
	is( $node->safe_psql(
			'bytes', qq{
			SELECT n, sqlstate, message, hex FROM answers JOIN given USING (n)
			WHERE call = '$call' AND sqlstate NOT IN ('an answer', '22023') ORDER BY n LIMIT 10}
		),
		'',
		"$call: an answer or 22023, whatever is given");
	note(
		"$call: ",
		$node->safe_psql(
			'bytes', qq{
			SELECT string_agg(format('%s x %s', n, sqlstate), ', ' ORDER BY n DESC)
			FROM (SELECT sqlstate, count(*) AS n FROM answers WHERE call = '$call' GROUP BY 1) a}
		));
}
is( $node->safe_psql(
		'bytes',
		q{SELECT count(*) > 100 FROM answers WHERE sqlstate = 'an answer' AND call = 'next_runs'}
	),
	't',
	'many of them were good');
is( $node->safe_psql(
		'bytes',
		q{SELECT call, n, took FROM answers WHERE took > 1 ORDER BY took DESC LIMIT 5}
	),
	'',
	'all came at once');
is( $node->safe_psql(
		'bytes',
		q{SELECT count(*) FROM (SELECT DISTINCT a.n FROM answers a JOIN answers b USING (n)
		WHERE a.call <> b.call AND (a.sqlstate = '22023') <> (b.sqlstate = '22023') AND a.call = 'describe'
			AND b.call = 'add_task') x}),
	'0',
	'what can be described can be scheduled');


# ------------------------------------------------------------------------
# How long one takes

my $n  = $calls;
my $ms = $node->safe_psql(
	'bytes', qq{
	CREATE TABLE good AS SELECT row_number() OVER () AS n, convert_from(decode(hex, 'hex'), 'SQL_ASCII') AS schedule, zone, start::timestamptz
	FROM given JOIN answers USING (n)
	WHERE call = 'next_runs' AND sqlstate = 'an answer' AND isfinite(start::timestamptz);
	CREATE TABLE timed AS SELECT clock_timestamp() AS began;
	SELECT count(*) FROM (SELECT taskshed.next_runs(schedule, zone, after => start, n => 1) FROM good,
		generate_series(1, 1 + $n / (SELECT count(*) FROM good)) LIMIT $n) AS calls;
	SELECT round((extract(epoch FROM clock_timestamp() - began) / $n * 1e6)::numeric, 1) FROM timed}
);
$ms =~ s/.*\n//s;
note("next_runs: $ms us a call");

is($node->safe_psql('bytes', 'SELECT 1'), '1', 'the server is up');
$node->stop;
done_testing();
