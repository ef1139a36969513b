
# Exactly once: each task inserts its own number into a table that would take
# it twice, while workers, the scheduler, the launcher and the server are
# killed, terminated and stopped and runs are cancelled, at random.  At the end
# each number is there once, no task is left, and the history agrees.
#
# TASKSHED_SOAK=20 does that for 20 minutes; TASKSHED_SEED=n repeats a sequence
# of faults.
#
# Quick: promises 2 and 3; crash

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
my $rounds  = 42;
my $batch   = 120;

# (A task that is hit by chance again and again must not be taken for the
# culprit.  wal_writer_delay: a crash takes back what was not written yet, the
# longer the more.)
my $node = taskshed_node(
	'ledger', conf => q{
restart_after_crash = on
wal_writer_delay = '1s'
taskshed.max_interruptions = 1000
});

# An effect has an echo, by a trigger that fires when the run is as good as
# over.
$node->safe_psql(
	'postgres', q{
CREATE ROLE app LOGIN;
CREATE ROLE other LOGIN;
ALTER ROLE other SET taskshed.tasks_per_commit = 32;
CREATE TABLE effects (
	n integer NOT NULL,
	attempt integer NOT NULL,
	started timestamptz NOT NULL DEFAULT clock_timestamp(),
	pid integer NOT NULL DEFAULT pg_backend_pid());
CREATE TABLE echoes (n integer NOT NULL);
GRANT ALL ON effects, echoes TO PUBLIC;

CREATE FUNCTION echo() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	INSERT INTO echoes VALUES (new.n);
	RETURN NULL;
END $$;
CREATE CONSTRAINT TRIGGER echo AFTER INSERT ON effects DEFERRABLE INITIALLY DEFERRED
FOR EACH ROW EXECUTE FUNCTION echo();

-- Takes so many seconds, fails so many times, schedules a successor.
CREATE FUNCTION effect(n integer, seconds float8 DEFAULT 0, failures integer DEFAULT 0,
	successor integer DEFAULT NULL)
RETURNS integer LANGUAGE plpgsql AS $$
DECLARE
	me record := taskshed.current_task();
BEGIN
	INSERT INTO effects (n, attempt) VALUES (effect.n, me.attempt);
	PERFORM pg_sleep(seconds);
	IF successor IS NOT NULL THEN
		PERFORM taskshed.add_task('effect', kwargs => jsonb_build_object('n', successor),
			task_id => successor::text, max_attempts => 0, retry_delay => '20 ms');
	END IF;
	IF me.attempt <= failures THEN
		RAISE EXCEPTION 'on purpose';
	END IF;
	RETURN effect.n;
END $$;

-- Tasks for some more numbers, each as its own call would add it.
CREATE FUNCTION add_numbers(first integer, number integer) RETURNS void LANGUAGE sql AS $$
	SELECT count(taskshed.add_task('effect',
		run_at => clock_timestamp() + random() * interval '1.5 s',
		kwargs => jsonb_build_object('n', n,
			'seconds', CASE WHEN n % 20 = 0 THEN 0.3 WHEN n % 4 = 0 THEN 0.02 ELSE 0 END,
			'failures', CASE WHEN n % 9 = 0 THEN 2 ELSE 0 END,
			'successor', CASE WHEN n % 10 = 3 THEN -n END),
		task_id => n::text,
		owner => CASE WHEN n % 3 = 0 THEN 'other' ELSE 'app' END,
		max_attempts => 0, retry_delay => '20 ms', retry_backoff => 1.5, retry_max_delay => '1 s'))
	FROM generate_series(first, first + number - 1) AS n
$$;
});

my $faults  = TaskshedFaults->new($node, $seed);
my $end     = time + 60 * $minutes;
my $said    = time;
my $numbers = 0;
my $round   = 0;
diag("seed $seed");

while ($minutes > 0 ? time < $end : $round < $rounds)
{
	my $before = $node->safe_psql('postgres', 'SELECT count(*) FROM effects');
	my $some   = $before + int(rand($batch));

	$node->safe_psql('postgres',
		'SELECT add_numbers(' . ($numbers + 1) . ", $batch)");
	$numbers += $batch;
	$round++;
	TaskshedFaults::ask($node,
		"SELECT 1 WHERE (SELECT count(*) FROM effects) >= $some");
	$faults->strike;

	# let the tasks keep pace in the end
	TaskshedFaults::ask($node,
		'SELECT 1 WHERE (SELECT count(*) FROM _taskshed.task) < 2000')
	  if $round % 10 == 0;
	if ($minutes > 0 && time - $said >= 60)
	{
		$said = time;
		diag("$numbers tasks, " . ($faults->counts)[1]);
	}
}

my $total = $node->safe_psql('postgres',
	"SELECT $numbers + count(*) FROM generate_series(1, $numbers) AS n WHERE n % 10 = 3"
);
await_no_task($node, '%');
is( $node->safe_psql(
		'postgres', q{
		SELECT task_id, state, last_status, last_error FROM taskshed.tasks LIMIT 10}
	),
	'',
	'no task is left');
is( $node->safe_psql(
		'postgres', qq{
		SELECT n FROM (SELECT generate_series(1, $numbers)
			UNION ALL SELECT -generate_series(3, $numbers, 10)) AS x(n)
		EXCEPT ALL SELECT n FROM effects}),
	'',
	'nothing is lost');
is( $node->safe_psql(
		'postgres', qq{
		SELECT n FROM effects
		EXCEPT ALL SELECT n FROM (SELECT generate_series(1, $numbers)
			UNION ALL SELECT -generate_series(3, $numbers, 10)) AS x(n)}),
	'',
	'nothing is doubled');
is( $node->safe_psql(
		'postgres', 'SELECT count(*), count(DISTINCT n) FROM echoes'),
	"$total|$total",
	'the same is true of what deferred triggers do');
is( $node->safe_psql(
		'postgres', q{
		(SELECT 'effect', n::text, n::text, pid, attempt FROM effects
			EXCEPT ALL SELECT 'effect', task_id, result, worker_pid, attempt
			FROM taskshed.runs WHERE status = 'succeeded')
		UNION ALL
		(SELECT 'run', task_id, result, worker_pid, attempt
			FROM taskshed.runs WHERE status = 'succeeded'
			EXCEPT ALL SELECT 'run', n::text, n::text, pid, attempt FROM effects)
		LIMIT 10}),
	'',
	'the history has the same runs');

# Each attempt but the last one is recorded as failed: those that were to fail
# and those that were cancelled.  Those that were interrupted used none.
is( $node->safe_psql(
		'postgres', q{
		SELECT task_id, string_agg(status || ' ' || attempt, ', ' ORDER BY finished_at, run_id) FROM taskshed.runs
		GROUP BY task_id
		HAVING count(*) FILTER (WHERE status = 'failed') <> max(attempt) - 1
			OR count(DISTINCT attempt) FILTER (WHERE status IN ('failed', 'succeeded')) <> max(attempt)
			OR count(*) FILTER (WHERE status = 'succeeded') <> 1
		LIMIT 10}),
	'',
	'each attempt is recorded once');
is( $node->safe_psql(
		'postgres', q{
		SELECT DISTINCT status, sqlstate, message FROM taskshed.runs
		WHERE status NOT IN ('succeeded', 'interrupted')
			AND (sqlstate, message) NOT IN (('P0001', 'on purpose'),
				('57014', 'canceling statement due to user request'))}),
	'',
	'nothing has failed that was not made to');

my ($n, $what) = $faults->counts;
cmp_ok($n, '>=', 15, 'enough has happened');
diag("$total tasks; $what");
diag(
	'runs: ' . $node->safe_psql(
		'postgres', q{
		SELECT string_agg(status || ' ' || n, ', ' ORDER BY status)
		FROM (SELECT status, count(*) FROM taskshed.runs GROUP BY 1) AS x (status, n)}
	));
diag('work resumed after the server accepted connections: '
	  . $faults->resumed('effects'));

$node->stop;
done_testing();
