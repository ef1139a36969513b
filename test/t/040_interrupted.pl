
# Runs that lose their worker, their scheduler or the server while something
# else is going on with the task: each is written down as interrupted, what was
# asked for is done all the same, and a callback that is to blame comes to an
# end after taskshed.max_interruptions runs, whereas one beside it that takes
# its time does not.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use TaskshedFaults;
use TaskshedTest;
use Test::More;

my $node = taskshed_node(
	'interrupted', conf => q{
restart_after_crash = on
taskshed.max_interruptions = 2
});

$node->safe_psql(
	'postgres', q{
CREATE ROLE app LOGIN;

-- A shell kills the process that called it, and the server goes down.
CREATE FUNCTION crash() RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	COPY (SELECT 1) TO PROGRAM 'kill -9 $PPID';
	PERFORM pg_sleep(600);
END $$;

-- Ends the scheduler and its own process.
CREATE FUNCTION terminate_both() RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	PERFORM pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type = 'taskshed scheduler';
	PERFORM pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type = 'taskshed worker';
	PERFORM pg_sleep(600);
END $$;

-- Takes until the gate is open.  (An advisory lock would not survive a crash.)
CREATE TABLE gate ();
GRANT SELECT ON gate TO PUBLIC;
CREATE FUNCTION wait_at_gate(what text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	WHILE NOT EXISTS (SELECT FROM public.gate) LOOP
		PERFORM pg_sleep(0.05);
	END LOOP;
	PERFORM public.note(what);
END $$;
});

# A task that has nothing to do with all this still runs.
# Terminates the worker of a task that waits for lock 1, and waits until
# another one has come as far.
sub lose_worker
{
	my ($task_id) = @_;
	my $pid = query(
		"SELECT worker_pid FROM taskshed.tasks WHERE task_id = '$task_id'");

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	is(query("SELECT pg_terminate_backend($pid)"),
		't', "$task_id: its worker is terminated");
	await(
		$node,
		"SELECT worker_pid <> $pid FROM taskshed.tasks WHERE task_id = '$task_id'",
		"$task_id: it is running again");
	await_blocked($node, 1);
	return;
}

#
# A run of which something is asked while it is running, and which then loses
# its worker
#
my $holder = session($node);
my $collapse =
  q{add_task('hold', kwargs => '{"what": "collapse"}', task_id => 'collapse', replace_existing => false)};

$holder->query('SELECT pg_advisory_lock(1)');
app($collapse);
await_blocked($node, 1);
app($collapse);
lose_worker('collapse');
$holder->query('SELECT pg_advisory_unlock(1)');
await_no_task($node, 'collapse');
is( runs_of($node, 'collapse'),
	'interrupted 1, succeeded 1',
	'a run is recorded as interrupted though its task was added again');
is(effects_of($node, 'collapse'), '1', 'and its task has run after that');

$holder->query('SELECT pg_advisory_lock(1)');
app(q{add_task('hold', kwargs => '{"what": "once"}', task_id => 'once')});
await_blocked($node, 1);
is(app(q{run_tasks(ARRAY['once'])}), '1', 'an extra run of a one-off task');
lose_worker('once');
$holder->query('SELECT pg_advisory_unlock(1)');
await_no_task($node, 'once');
is( runs_of($node, 'once'),
	'interrupted 1, succeeded 1, succeeded 1',
	'the run is done again, and the extra run too');
is(effects_of($node, 'once'), '2', 'that makes two');

$holder->query('SELECT pg_advisory_lock(1)');
app(q{add_task('hold', '2020-01-01', '{"what": "daily"}', every => '1 day', task_id => 'daily')}
);
await_blocked($node, 1);
is(app(q{run_tasks(ARRAY['daily'])}), '1', 'one of a recurring task');
lose_worker('daily');
$holder->query('SELECT pg_advisory_unlock(1)');
await(
	$node,
	q{SELECT count(*) = 2 FROM taskshed.runs WHERE task_id = 'daily' AND status = 'succeeded'},
	'both runs have ended');
await(
	$node,
	q{SELECT state = 'scheduled' FROM taskshed.tasks WHERE task_id = 'daily'},
	'it waits for its next time');
another_runs($node, 'app', 'after that');
is( runs_of($node, 'daily'),
	'interrupted 1, succeeded 1, succeeded 1',
	'both runs of a recurring task are done');
is( query(
		q{SELECT run_count, run_at > now(), resume_at IS NULL
		FROM _taskshed.task JOIN _taskshed.alarm USING (id) WHERE task_id = 'daily'}
	),
	'1|t|t',
	'one of which is of its schedule');
$holder->quit;
query(q{SELECT taskshed.remove_all_tasks('app')});

#
# A callback that ends the scheduler as well, who would have to write it down
#
query(
	q{SELECT taskshed.add_task('terminate_both', task_id => 'both', max_attempts => 2)}
);
await(
	$node,
	q{SELECT state = 'failed' FROM taskshed.tasks WHERE task_id = 'both'},
	'the callback has failed');
is( runs_of($node, 'both'),
	'interrupted 1, interrupted 1',
	'a callback that ends its scheduler too has failed after so many runs');
is( query(
		q{SELECT last_status, last_sqlstate FROM taskshed.tasks WHERE task_id = 'both'}
	),
	'interrupted|57P01',
	'as interrupted');
another_runs($node, 'app', 'the scheduler terminated');

#
# A run beside the schedule that crashes the server
#
my $log = -s $node->logfile;
query(
	q{SELECT taskshed.add_task('crash', now() + '1 day', every => '1 day', task_id => 'crash beside')}
);

# (the server may be down before the answer is there)
$node->psql('postgres', q{SELECT taskshed.run_tasks(ARRAY['crash beside'])});
TaskshedFaults::await_through_crashes($node,
	q{failed_at IS NOT NULL FROM _taskshed.alarm JOIN _taskshed.task USING (id) WHERE task_id = 'crash beside'}
);
is( query(
		q{SELECT resume_at IS NULL FROM _taskshed.alarm JOIN _taskshed.task USING (id) WHERE task_id = 'crash beside'}
	),
	't',
	'a culprit that was run beside its schedule is not to run any more');
another_runs($node, 'app', 'the server crashed');
is( query(
		q{SELECT state, last_sqlstate FROM taskshed.tasks WHERE task_id = 'crash beside'}
	),
	'failed|57P01',
	'it has failed');
is( runs_of($node, 'crash beside'),
	'interrupted 1, interrupted 1',
	'after so many runs');
my $crashes =
  count_in_log($node, qr/all server processes terminated; reinitializing/,
	$log);
is($crashes, 2, 'and so many crashes');
query(q{SELECT taskshed.remove_all_tasks()});

#
# A culprit, and one beside it that is still running at each crash
#
set_and_reload($node, 'taskshed.max_interruptions' => 5);
await(
	$node,
	q{SELECT current_setting('taskshed.max_interruptions') = '5'},
	'the limit is its default');
$log = -s $node->logfile;
app(q{add_task('wait_at_gate', kwargs => '{"what": "innocent"}', task_id => 'innocent')}
);
await(
	$node,
	q{SELECT state = 'running' FROM taskshed.tasks WHERE task_id = 'innocent'},
	'one is running');
$node->psql('postgres',
	q{SELECT taskshed.add_task('crash', task_id => 'culprit')});
TaskshedFaults::await_through_crashes($node,
	q{state = 'failed' FROM taskshed.tasks WHERE task_id = 'culprit'});
is( runs_of($node, 'culprit'),
	join(', ', ('interrupted 1') x 5),
	'the culprit has failed after so many runs');
isnt(query(q{SELECT state FROM taskshed.tasks WHERE task_id = 'innocent'}),
	'failed', 'the task beside it has not');
query('INSERT INTO gate DEFAULT VALUES');
await(
	$node,
	q{SELECT NOT EXISTS (SELECT FROM taskshed.tasks WHERE task_id = 'innocent' AND state <> 'failed')},
	'the task beside it is over');
like(
	runs_of($node, 'innocent'),
	qr/^(interrupted 1, )+succeeded 1$/,
	'it has succeeded at last');
is(effects_of($node, 'innocent'), '1', 'once');
$crashes =
  count_in_log($node, qr/all server processes terminated; reinitializing/,
	$log);
is($crashes, 5, 'no crash was due to it');
diag(
	"the culprit had failed after "
	  . query(
		q{SELECT max(finished_at) - min(started_at) FROM taskshed.runs WHERE task_id = 'culprit'}
	  ));
another_runs($node, 'app', 'after all of that');

#
# Tasks that were interrupted before
#
# Lets tasks of the role app wait at the gate, in this order, after so many
# interruptions each, until those that can be are running.  Returns the state
# of each at that moment: a task that was not interrupted has started after them.
sub together
{
	my (@interruptions) = @_;
	my $states;

	query('TRUNCATE gate, ledger');
	query(
		'BEGIN;' . join(
			'',
			map {
				qq{SELECT taskshed.add_task('wait_at_gate', clock_timestamp(), '{"what": "$_"}',
					task_id => 'suspect $_', owner => 'app');
				UPDATE _taskshed.alarm SET interruptions = $interruptions[$_] WHERE id =
					(SELECT id FROM _taskshed.task WHERE task_id = 'suspect $_');}
			} 0 .. $#interruptions)
		  . q{SELECT taskshed.add_task('wait_at_gate', clock_timestamp() + interval '0.5 s',
			'{"what": "fresh"}', task_id => 'suspect not', owner => 'app'); COMMIT});
	await_state($node, 'suspect not', 'running');
	$states = query(
		q{SELECT string_agg(state, ' ' ORDER BY task_id) FROM taskshed.tasks WHERE task_id ~ 'suspect \d'}
	);
	query('INSERT INTO gate DEFAULT VALUES');
	await_no_task($node, 'suspect %');
	return $states;
}
is(together(1, 1), 'running running', 'those that were interrupted once');
is(together(2, 1, 1), 'running due due',
	'one more than once, and goes first');
is( together(1, 2, 1),
	'running due running',
	'one more than once, and must wait');
is(together(2, 3), 'running due', 'more than once, both');
set_and_reload($node, 'taskshed.max_interruptions' => 2);
is(together(1, 1), 'running due', 'where the next interruption is the last');
another_runs($node, 'app', 'after these');

$node->stop;
done_testing();
