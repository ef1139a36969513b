
# Recurring tasks under catch_up => 'all' through the same faults as in
# 030_ledger.pl: each time of their grids is in the ledger once, none is
# missing and none double.  Tasks that are paused and resumed, run beside their
# schedule, re-timed, replaced and removed meanwhile are checked against what
# must have become of them.
#
# TASKSHED_SOAK=20 does that for 20 minutes; TASKSHED_SEED=n repeats a sequence
# of faults.
#
# Quick: promises 2, 3 and 4; crash

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
my $rounds  = 16;

# (A task that is hit by chance again and again must not be taken for the
# culprit.)
my $node = taskshed_node(
	'recurring_ledger', conf => q{
restart_after_crash = on
wal_writer_delay = '1s'
taskshed.max_interruptions = 1000
});

$node->safe_psql(
	'postgres', q{
CREATE ROLE app LOGIN;
CREATE ROLE other LOGIN;
ALTER ROLE other SET taskshed.tasks_per_commit = 32;
CREATE TABLE beats (
	task_id text NOT NULL,
	planned timestamptz NOT NULL,
	started timestamptz NOT NULL DEFAULT clock_timestamp());
GRANT ALL ON beats TO PUBLIC;
CREATE FUNCTION beat(seconds float8 DEFAULT 0) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
	me record := taskshed.current_task();
BEGIN
	INSERT INTO beats (task_id, planned) VALUES (me.task_id, me.run_at);
	PERFORM pg_sleep(seconds);
END $$;

-- What was added: the grid, and the number of its times if that is limited.
CREATE TABLE grids (
	task_id text NOT NULL,
	anchor timestamptz NOT NULL,
	every interval NOT NULL,
	max_runs integer);

-- Has a task begin a grid of its own.
CREATE FUNCTION change(task_id text, every interval) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
	now timestamptz := clock_timestamp();
BEGIN
	INSERT INTO grids VALUES (task_id, now, every);
	IF task_id = 're-timed' THEN
		PERFORM taskshed.update_execution_time(task_id, now, 'app');
	ELSE
		PERFORM taskshed.add_task('beat', now, task_id => task_id, every => every,
			catch_up => 'all', owner => 'app');
	END IF;
END $$;
INSERT INTO grids
	SELECT 'endless ' || i, clock_timestamp(), (10 + 7 * i) * interval '5 ms', NULL
	FROM generate_series(1, 16) AS i;
INSERT INTO grids
	SELECT 'limited ' || i, clock_timestamp() - interval '1 s' * i, interval '40 ms', 100 + i
	FROM generate_series(1, 8) AS i;
INSERT INTO grids
	SELECT w, clock_timestamp(), interval '50 ms', NULL
	FROM unnest(ARRAY['paused', 'extra', 're-timed', 'replaced', 'removed']) AS w;
SELECT count(taskshed.add_task('beat', anchor, task_id => task_id, every => every, catch_up => 'all',
	max_runs => max_runs,
	kwargs => CASE WHEN task_id LIKE '%3' THEN '{"seconds": 0.06}'::jsonb END,
	owner => CASE WHEN task_id LIKE '%2' THEN 'other' ELSE 'app' END))
FROM grids;
});

# Between the faults, somebody works with the tasks.  Each of these comes again
# and again.
my @changes = (
	q{SELECT taskshed.pause_task('paused', 'app')},
	q{SELECT taskshed.resume_task('paused', 'app')},
	q{SELECT taskshed.run_tasks(ARRAY['extra'], owner => 'app')},
	q{SELECT change('re-timed', interval '50 ms')},
	q{SELECT change('replaced', interval '60 ms')},
	q{SELECT taskshed.remove_task('removed', 'app'); SELECT change('removed', interval '70 ms')}
);

my $faults = TaskshedFaults->new($node, $seed);
my $end    = time + 60 * $minutes;
my $said   = time;
my $round  = 0;
my $extra  = 0;
diag("seed $seed");

while ($minutes > 0 ? time < $end : $round < $rounds)
{
	my $before = $node->safe_psql('postgres', 'SELECT count(*) FROM beats');
	my $some   = $before + int(rand(120));

	TaskshedFaults::ask($node,
		"SELECT 1 WHERE (SELECT count(*) FROM beats) >= $some");
	for (1 .. 3)
	{
		my $change = $changes[ int(rand(@changes)) ];

		$node->safe_psql('postgres', $change);
		$extra++ if $change =~ /run_tasks/;
	}
	$faults->strike;
	$round++;
	if ($minutes > 0 && time - $said >= 60)
	{
		$said = time;
		diag("$before runs, " . ($faults->counts)[1]);
	}
}

# Everything that was missed is caught up; then no run is to begin any more.
$node->safe_psql('postgres', q{SELECT taskshed.resume_task('paused', 'app')});
await(
	$node,
	q{SELECT count(*) = 0 FROM taskshed.tasks
	WHERE run_at < clock_timestamp() - interval '1 s' OR max_runs IS NOT NULL},
	'all has been caught up');
$node->safe_psql(
	'postgres', q{
	SELECT taskshed.pause_tasks(array_agg(task_id), owner => owner) FROM taskshed.tasks GROUP BY owner}
);
await(
	$node,
	q{SELECT bool_and(state = 'paused') FROM taskshed.tasks},
	'nothing is running');

# A time whose run was cancelled has failed: it has no attempts left and is in
# the history instead of the ledger.
$node->safe_psql(
	'postgres', q{
CREATE VIEW times AS
	SELECT task_id, planned, true AS done FROM beats
	UNION ALL
	SELECT task_id, scheduled_at, false FROM taskshed.runs
	WHERE status = 'failed' AND sqlstate = '57014';
CREATE VIEW wanted AS
	SELECT g.task_id, g.anchor + i * g.every AS planned
	FROM grids g LEFT JOIN taskshed.tasks t USING (task_id),
		generate_series(0, coalesce(g.max_runs, round(
			extract(epoch FROM t.run_at - g.anchor) / extract(epoch FROM g.every))::integer) - 1) AS i
	WHERE g.task_id NOT IN ('re-timed', 'replaced', 'removed')});

# An extra run is in the ledger with a time of the grid, too; all runs but
# those are compared.
is( $node->safe_psql(
		'postgres', q{
		SELECT task_id, planned FROM wanted WHERE task_id <> 'extra'
		EXCEPT ALL SELECT task_id, planned FROM times LIMIT 10}),
	'',
	'no time of a grid is missing');
is( $node->safe_psql(
		'postgres', q{
		SELECT task_id, planned FROM times
		WHERE task_id NOT IN ('extra', 're-timed', 'replaced', 'removed')
		EXCEPT ALL SELECT task_id, planned FROM wanted LIMIT 10}),
	'',
	'none is there twice');
is( $node->safe_psql(
		'postgres', q{
		SELECT task_id, count(*), count(DISTINCT planned) FROM times
		WHERE task_id IN ('re-timed', 'replaced', 'removed')
		GROUP BY task_id HAVING count(*) <> count(DISTINCT planned)}),
	'',
	'nor of tasks that were re-timed, replaced and removed');
# A grid that was given up for another has all its times up to some time.
is( $node->safe_psql(
		'postgres', q{
		SELECT task_id, anchor, count(*), max(i) FROM
			(SELECT g.task_id, g.anchor,
				extract(epoch FROM t.planned - g.anchor) / extract(epoch FROM g.every) AS i
			FROM (SELECT *, lead(anchor, 1, 'infinity') OVER (PARTITION BY task_id ORDER BY anchor) AS given_up FROM grids) g
			JOIN times t ON t.task_id = g.task_id AND t.planned >= g.anchor AND t.planned < g.given_up
			WHERE g.task_id IN ('re-timed', 'replaced', 'removed')) AS x
		WHERE i = trunc(i)
		GROUP BY 1, 2 HAVING count(*) <> max(i) + 1 LIMIT 10}),
	'',
	'their grids have no holes');
is( $node->safe_psql(
		'postgres', q{
		SELECT planned FROM wanted WHERE task_id = 'extra'
		EXCEPT SELECT planned FROM times WHERE task_id = 'extra' LIMIT 10}),
	'',
	'runs beside the schedule take no time away');
my $extras = $node->safe_psql(
	'postgres', q{
	SELECT (SELECT count(*) FROM times WHERE task_id = 'extra') -
		(SELECT count(*) FROM wanted WHERE task_id = 'extra')});
cmp_ok($extras, '<=', $extra,
	"nor are there more than were asked for ($extras of $extra)");
cmp_ok($extras, '>', 0, 'but some') if $extra > 0;

is( $node->safe_psql(
		'postgres', q{
		(SELECT task_id, planned FROM beats
			EXCEPT ALL SELECT task_id, scheduled_at FROM taskshed.runs WHERE status = 'succeeded')
		UNION ALL
		(SELECT task_id, scheduled_at FROM taskshed.runs WHERE status = 'succeeded'
			EXCEPT ALL SELECT task_id, planned FROM beats)
		LIMIT 10}),
	'',
	'the history has the same runs');
is( $node->safe_psql(
		'postgres', q{
		SELECT a.task_id, a.run_id, b.run_id FROM taskshed.runs a JOIN taskshed.runs b
			ON a.task_id = b.task_id AND a.owner = b.owner AND a.run_id < b.run_id
			AND a.started_at < b.finished_at AND b.started_at < a.finished_at
		WHERE a.status = 'succeeded' AND b.status = 'succeeded' AND a.task_id NOT IN ('replaced', 'removed')
			AND a.task_id LIKE '%3'
		LIMIT 10}),
	'',
	'no task ran beside itself');
is( $node->safe_psql(
		'postgres', q{
		SELECT task_id, status, started_at, scheduled_at FROM taskshed.runs
		WHERE started_at < scheduled_at AND task_id <> 'extra' LIMIT 10}),
	'',
	'no run is said to have begun before its time');
is( $node->safe_psql(
		'postgres', q{
		SELECT DISTINCT status, sqlstate, message FROM taskshed.runs
		WHERE status NOT IN ('succeeded', 'interrupted') AND sqlstate <> '57014'}),
	'',
	'nothing has failed that was not made to');

my ($n, $what) = $faults->counts;
cmp_ok($n, '>=', 15, 'enough has happened');
diag($node->safe_psql('postgres', 'SELECT count(*) FROM beats')
	  . " runs; $what");
diag(
	'runs: ' . $node->safe_psql(
		'postgres', q{
		SELECT string_agg(status || ' ' || n, ', ' ORDER BY status)
		FROM (SELECT status, count(*) FROM taskshed.runs GROUP BY 1) AS x (status, n)}
	));
diag('work resumed after the server accepted connections: '
	  . $faults->resumed('beats'));

$node->stop;
done_testing();
