
# One alert for each final failure, and none for any other end: tasks fail for good, succeed, or fail
# first and succeed then, while workers, the scheduler, the launcher and the server are killed,
# terminated and stopped at random.
#
# TASKSHED_SOAK=20 does that for 20 minutes; TASKSHED_SEED=n repeats a sequence of faults.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use TaskshedFaults;
use TaskshedTest;
use Test::More;

my $minutes = $ENV{TASKSHED_SOAK} || 0;
my $seed    = $ENV{TASKSHED_SEED} || int(rand(1_000_000));
my $rounds  = 25;
my $batch   = 100;

# (A task that is hit by chance again and again must not be taken for the culprit.)
my $node = taskshed_node(
	'alerts', conf => q{
restart_after_crash = on
wal_writer_delay = '1s'
taskshed.max_interruptions = 1000
});

# Of five tasks one fails for good, one does so in its second attempt, one fails once and succeeds
# then, and two succeed.  Half of them say what is to be called, for the others it is a setting.
query(
	q{
	CREATE ROLE app LOGIN;
	CREATE ROLE other LOGIN;
	CREATE TABLE effects (n integer NOT NULL);
	CREATE TABLE alerts (n integer NOT NULL, attempt integer, status text);
	GRANT ALL ON effects, alerts TO PUBLIC;
	CREATE FUNCTION alert(task_kwargs jsonb, attempt integer, status text) RETURNS void LANGUAGE sql AS $$
		INSERT INTO public.alerts VALUES ((task_kwargs->>'n')::int, attempt, status) $$;
	ALTER ROLE other SET taskshed.on_failure = 'public.alert';
	CREATE FUNCTION work(n integer) RETURNS void LANGUAGE plpgsql AS $$
	DECLARE
		attempt integer := (taskshed.current_task()).attempt;
	BEGIN
		PERFORM pg_sleep(random() * 0.02);
		IF n % 5 <= 1 OR (n % 5 = 2 AND attempt = 1) THEN
			RAISE EXCEPTION 'on purpose';
		END IF;
		INSERT INTO public.effects VALUES (n);
	END $$;
	CREATE FUNCTION add_numbers(first integer, number integer) RETURNS void LANGUAGE sql AS $$
		SELECT count(taskshed.add_task('work', clock_timestamp() + random() * interval '1.5 s', jsonb_build_object('n', n),
			task_id => 'task ' || n, owner => CASE WHEN n % 2 = 0 THEN 'other' ELSE 'app' END,
			on_failure => CASE WHEN n % 2 = 1 THEN 'alert' END,
			max_attempts => CASE WHEN n % 5 IN (1, 2) THEN 2 END, retry_delay => '20 ms'))
		FROM generate_series(first, first + number - 1) AS n $$});

# (One that is cancelled is not to be told of.)
my $faults  = TaskshedFaults->new($node, $seed, without => 'cancel worker');
my $end     = time + 60 * $minutes;
my $numbers = 0;
my $round   = 0;
diag("seed $seed");

while ($minutes > 0 ? time < $end : $round < $rounds)
{
	my $before = TaskshedFaults::ask($node, 'SELECT count(*) FROM effects');
	my $some   = $before + int(rand($batch / 2));

	query('SELECT add_numbers(' . ($numbers + 1) . ", $batch)");
	$numbers += $batch;
	$round++;
	TaskshedFaults::ask($node,
		"SELECT 1 WHERE (SELECT count(*) FROM effects) >= $some");
	$faults->strike;
}
await(
	$node,
	q{SELECT NOT EXISTS (SELECT FROM taskshed.tasks WHERE state <> 'failed')},
	'all have ended');

my $alerts =
  query(q{SELECT n, attempt, status FROM alerts ORDER BY n, attempt});
is( $alerts,
	query(
		qq{SELECT n, 1 + n % 5, 'failed' FROM generate_series(1, $numbers) AS n WHERE n % 5 <= 1 ORDER BY n}
	),
	'one alert for each final failure, and none for another end');
is( query(qq{SELECT count(*), count(DISTINCT n) = count(*) FROM effects}),
	($numbers * 3 / 5) . '|t',
	'each of the others has had its effect once');
is( query(
		q{SELECT count(*) FROM taskshed.tasks WHERE task_id ~ '^on_failure'}),
	0,
	'no alert has failed');
is( query(q{SELECT count(*) FROM taskshed.tasks}),
	$numbers * 2 / 5,
	'those that have failed are there');

my ($n, $what) = $faults->counts;
cmp_ok($n, '>=', 15, 'enough has happened');
diag("$numbers tasks; $what");
$node->stop;
done_testing();
