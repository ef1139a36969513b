
# Schedules as they run: each second once, whether by a cron expression, a
# number of seconds or an interval; minutes, over a restart; what becomes of
# times that were missed, of limits, and of moves.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use TaskshedTest;
use Test::More;

# As long as it takes for a drift to show
my $seconds = $ENV{TASKSHED_SECONDS} || 60;

my $node = taskshed_node('calendar', conf => "timezone = 'UTC'");

$node->safe_psql(
	'postgres', q{
CREATE ROLE app LOGIN;
CREATE FUNCTION tick(what text) RETURNS void LANGUAGE sql AS $$
	SELECT note(what, (taskshed.current_task()).run_at) $$;
});

sub as_app
{
	my ($sql) = @_;
	return query("SET ROLE app; SELECT $sql");
}

# Each second, three ways.  The times of the cron expression and of the number
# of seconds are full seconds; so are those of the interval if it begins at one.
as_app(
	q{taskshed.add_task('tick', kwargs => '{"what": "cron"}', schedule => '* * * * * *',
		timezone => 'Asia/Kathmandu', catch_up => 'all', task_id => 'cron'),
	taskshed.add_task('tick', kwargs => '{"what": "seconds"}', schedule => '1 second',
		catch_up => 'all', task_id => 'seconds'),
	taskshed.add_task('tick', date_trunc('second', now()) + interval '1 s', '{"what": "every"}', every => '1 second',
		catch_up => 'all', task_id => 'every')}
);
foreach my $task ('cron', 'seconds', 'every')
{
	await(
		$node,
		"SELECT count(*) > $seconds FROM ledger WHERE what = '$task'",
		"$task has run for $seconds seconds");
	is( query(
			qq{
			SELECT count(*) = count(DISTINCT scheduled_at),
				count(*) = extract(epoch FROM max(scheduled_at) - min(scheduled_at)) + 1,
				bool_and(scheduled_at = date_trunc('second', scheduled_at)), bool_and(status = 'succeeded'),
				bool_and(started_at >= scheduled_at)
			FROM taskshed.runs WHERE task_id = '$task'}),
		't|t|t|t|t',
		"$task has hit each second once");
	diag "lag of $task: ", lag_of_ledger($node, "what = '$task'");
}
as_app("taskshed.remove_tasks(ARRAY['cron', 'seconds', 'every'])");

# A schedule goes on after a restart with the time that it was waiting for, and
# stands for those that were missed meanwhile as catch_up says.
as_app(
	q{taskshed.add_task('tick', kwargs => '{"what": "all"}', schedule => '*/2 * * * * *', catch_up => 'all', task_id => 'all'),
	taskshed.add_task('tick', kwargs => '{"what": "once"}', schedule => '*/2 * * * * *', task_id => 'once')}
);
await(
	$node,
	"SELECT count(DISTINCT what) = 2 FROM ledger WHERE what IN ('all', 'once')",
	'schedules of two seconds have run');
$node->stop('immediate');
sleep 5;    # for times to be missed
$node->start;
my $restarted = query('SELECT pg_postmaster_start_time()');

foreach my $task ('all', 'once')
{
	await(
		$node,
		"SELECT count(*) >= 3 FROM ledger WHERE what = '$task' AND started > '$restarted'",
		"$task has run after the restart");
}
is( query(
		q{SELECT bool_and(next - planned = interval '2 s') FROM (
			SELECT planned, lead(planned) OVER (ORDER BY planned) AS next FROM ledger WHERE what = 'all') x}
	),
	't',
	'with catch_up all it has run for each of its times');
is( query(
		q{SELECT count(*) FROM (
			SELECT planned, lead(planned) OVER (ORDER BY planned) AS next FROM ledger WHERE what = 'once') x
		WHERE next - planned > interval '2 s'}),
	'1',
	'and otherwise once for those that were missed');
as_app("taskshed.remove_tasks(ARRAY['all', 'once'])");

# What next_runs has said is what happens: the first run at the time that is
# given, the others by the schedule, as many as there may be.
as_app(
	q{taskshed.add_task('tick', now() + interval '0.5 s', '{"what": "few"}', schedule => '1 second',
		max_runs => 4, task_id => 'few')});
query(
	q{CREATE TABLE said (t timestamptz); GRANT ALL ON said TO app; SET ROLE app;
	INSERT INTO said SELECT * FROM taskshed.next_runs(task_id => 'few', n => 10)}
);
await_no_task($node, 'few');
is(query("SELECT count(*) FROM said"), '4', 'next_runs says four times');
is( query(
		q{SELECT count(*) FROM (SELECT t FROM said EXCEPT ALL SELECT planned FROM ledger WHERE what = 'few') x}
	),
	'0',
	'and at these the task has run');

# One that is moved runs then, and by its schedule after that.
as_app(
	q{taskshed.add_task('tick', kwargs => '{"what": "moved"}', schedule => '0 0 1 1 *', timezone => 'Asia/Kathmandu', task_id => 'moved')}
);
as_app(q{taskshed.update_execution_time('moved', now() + interval '0.1 s')});
await(
	$node,
	q{SELECT count(*) = 1 FROM ledger WHERE what = 'moved'},
	'a task is moved');
await(
	$node,
	q{SELECT to_char(run_at AT TIME ZONE 'Asia/Kathmandu', 'MM-DD HH24:MI:SS') = '01-01 00:00:00' FROM taskshed.tasks WHERE task_id = 'moved'},
	'and goes on by its schedule');

$node->stop;
done_testing();
