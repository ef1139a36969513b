
# Deploy scripts and update_tasks while tasks run and wait to be tried again:
# what is deployed again and again fails in the end as it would have, what is
# over goes and lets its run end, what is changed in a point loses no run; and
# what add_tasks adds runs in the order of its array.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use TaskshedTest;
use Test::More;

my $node = taskshed_node('deploys', conf => 'taskshed.max_workers = 1');

$node->safe_psql(
	'postgres', q{
CREATE TABLE done (what text, n serial);
CREATE FUNCTION tell(what text) RETURNS void LANGUAGE sql AS 'INSERT INTO public.done VALUES (what)';
CREATE FUNCTION fail() RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	RAISE EXCEPTION 'on purpose';
END $$;

-- Waits for lock 1.
CREATE FUNCTION tell_later(what text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	PERFORM pg_advisory_xact_lock_shared(1);
	PERFORM public.tell(what);
END $$;
});

sub done
{
	return query(q{SELECT string_agg(what, ' ' ORDER BY n) FROM done});
}

# Waits until a task has been tried so often.
sub await_tries
{
	my ($task_id, $n) = @_;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	return await(
		$node,
		"SELECT count(*) = $n FROM taskshed.runs WHERE task_id = '$task_id'",
		"task $task_id was tried $n times");
}

# A definition that is deployed after each failure: it must not be given its
# attempts again, or it would never be found to have failed.  The attempts
# are an hour apart, and are called for.
foreach my $kind ([ 'once', '' ], [ 'recurring', ", every => '1 year'" ])
{
	my ($task_id, $times) = @$kind;
	my $deploy = "SELECT taskshed.add_task('fail', max_attempts => 3,"
	  . " retry_delay => '1 hour', retry_backoff => 1, task_id => '$task_id'$times)";

	query($deploy);
	foreach my $attempt (1 .. 3)
	{
		await_tries($task_id, $attempt);
		await(
			$node,
			"SELECT state <> 'running' FROM taskshed.tasks WHERE task_id = '$task_id'",
			'the try is over');
		last if $attempt == 3;
		query($deploy);
		is( query(
				"SELECT attempt, state FROM taskshed.tasks WHERE task_id = '$task_id'"
			),
			"$attempt|scheduled",
			"$task_id: deployed again, it waits as before");
		query(
			"UPDATE _taskshed.alarm SET run_at = now() FROM _taskshed.task WHERE task.id = alarm.id AND task_id = '$task_id'"
		);
	}
	is( runs_of($node, $task_id),
		'failed 1, failed 2, failed 3',
		"$task_id: it was tried as often as it may be");
}
await_state($node, 'once', 'failed');
is( query(
		"SELECT failures_in_row, run_count, run_at > now() FROM taskshed.tasks WHERE task_id = 'recurring'"
	),
	'1|1|t',
	'the recurring task has gone on');

# Another definition begins anew, and at once.
query(
	q{SELECT taskshed.add_task('fail', max_attempts => 2, retry_delay => '1 hour', task_id => 'mended')}
);
await_tries('mended', 1);
await(
	$node,
	"SELECT attempt = 1 AND state = 'scheduled' FROM taskshed.tasks WHERE task_id = 'mended'",
	'it waits');
query(
	q{SELECT taskshed.add_task('tell', kwargs => '{"what": "mended"}', task_id => 'mended')}
);
await_no_task($node, 'mended');
is(done(), 'mended', 'a task that was mended did not wait for its attempt');
is(runs_of($node, 'mended'), 'failed 1, succeeded 1', 'as a first attempt');
query('SELECT taskshed.remove_all_tasks(); TRUNCATE done');

# A task that is over when it is deployed goes; the run that it has ends.
my $holder = session($node);
$holder->query('SELECT pg_advisory_lock(1)');
query(
	q{SELECT taskshed.add_task('tell_later', kwargs => '{"what": "last"}', every => '1 day', task_id => 'over')}
);
await_blocked($node, 1);
my ($rc, $out, $err) = $node->psql(
	'postgres',
	q{SELECT taskshed.add_tasks('[{"callback": "tell_later", "kwargs": {"what": "last"}, "every": "1 day", "until": "2020-01-01", "task_id": "over"},
		{"callback": "tell", "kwargs": {"what": "next"}, "run_at": "2100-01-01", "task_id": "other"}]')}
);
is($out, '{over,other}', 'the ids of all are returned');
like(
	$err,
	qr/NOTICE:  task "over" is removed, since its times are over/,
	'which it says');
is(query('SELECT string_agg(task_id, \' \') FROM taskshed.tasks'),
	'other', 'it is gone, and the other is there');
$holder->query('SELECT pg_advisory_unlock(1)');
await_tries('over', 1);
is(done(),                 'last',        'its run had its effects');
is(runs_of($node, 'over'), 'succeeded 1', 'and is recorded');
query('SELECT taskshed.remove_all_tasks(); TRUNCATE done');

# What is changed while a task runs holds from the next run on; this one is
# counted, and is not done again.
$holder->query('SELECT pg_advisory_lock(1)');
query(
	q{SELECT taskshed.add_task('tell_later', kwargs => '{"what": "as it was"}', every => '1 day', task_id => 'changed')}
);
await_blocked($node, 1);
is( query(
		q{SELECT taskshed.update_tasks('{"kwargs": {"what": "changed"}, "timeout": "1 hour", "max_attempts": 3, "group_id": "g", "catch_up": "skip"}', array['changed'])}
	),
	'1',
	'a task is changed while it runs');
$holder->query('SELECT pg_advisory_unlock(1)');
await(
	$node,
	"SELECT state = 'scheduled' FROM taskshed.tasks WHERE task_id = 'changed'",
	'it has run');
is( query(
		"SELECT run_count, last_status, kwargs, timeout, run_at > now() + interval '23 hours' FROM taskshed.tasks"
	),
	'1|succeeded|{"what": "changed"}|01:00:00|t',
	'its run was counted, and the change is there');
query("SELECT taskshed.run_tasks(array['changed'])");
await($node, 'SELECT count(*) = 2 FROM done', 'it has run once more');
is(done(), 'as it was changed', 'as it is now');
query('SELECT taskshed.remove_all_tasks(); TRUNCATE done');

# New times win over the run in progress, which is done only once.
$holder->query('SELECT pg_advisory_lock(1)');
query(
	q{SELECT taskshed.add_task('tell_later', kwargs => '{"what": "x"}', task_id => 'times');
	SELECT taskshed.add_task('tell_later', kwargs => '{"what": "y"}', task_id => 'once', run_at => now() + interval '1 ms');}
);
await_blocked($node, 1);
is( query(
		q{SELECT taskshed.update_tasks('{"every": "1 day"}', array['times'])}
	),
	'1',
	'a task is made to recur while it runs');
$holder->query('SELECT pg_advisory_unlock(1)');
await_no_task($node, 'once');
await(
	$node,
	"SELECT state = 'scheduled' FROM taskshed.tasks WHERE task_id = 'times'",
	'it has run');
is( query(
		"SELECT run_type, run_at BETWEEN now() + interval '23 hours' AND now() + interval '1 day' FROM taskshed.tasks WHERE task_id = 'times'"
	),
	'recurring|t',
	'it goes on a day later');
is(done(), 'x y', 'and its run was not done again');
query('SELECT taskshed.remove_all_tasks(); TRUNCATE done');

# A run in progress ends by what limits its task then, and not by what did when it
# began.
my %ends = (
	longer   => [ q{max_runs => 1}, '{"max_runs": 2}', 'scheduled|1' ],
	extended => [
		q{until => now() + interval '1 hour'},
		'{"until": "2100-01-01"}',
		'scheduled|1'
	],
	shorter => [ q{max_runs => 5}, '{"max_runs": 1}', '' ],
	cut     => [
		q{max_runs => 5},
		'{"until": "' . query(q{SELECT now() + interval '1 hour'}) . '"}', ''
	]);
foreach my $end (sort keys %ends)
{
	my ($before, $changes, $after) = @{ $ends{$end} };

	$holder->query('SELECT pg_advisory_lock(1)');
	query(
		"SELECT taskshed.add_task('tell_later', kwargs => '{\"what\": \"$end\"}', every => '1 day', task_id => '$end', $before)"
	);
	await_blocked($node, 1);
	is(query("SELECT taskshed.update_tasks('$changes', ARRAY['$end'])"),
		'1', "$end: changed");
	$holder->query('SELECT pg_advisory_unlock(1)');
	await_tries($end, 1);
	is( query(
			"SELECT state, run_count FROM taskshed.tasks WHERE task_id = '$end'"
		),
		$after,
		"$end: the run in progress heeds it");
}
query('SELECT taskshed.remove_all_tasks(); TRUNCATE done');

# A definition that comes while another one of the name runs is another piece of
# work: it runs, whatever max_runs says.  The same one, if the run fails, is none.
$holder->query('SELECT pg_advisory_lock(1)');
my %calls = (
	replaced =>
	  q{add_task('tell', kwargs => '{"what": "second"}', max_runs => 1, task_id => 'replaced')},
	kept =>
	  q{add_task('tell_later', kwargs => '{"what": "kept"}', max_runs => 1, task_id => 'kept', replace_existing => false)},
	same =>
	  q{add_task('tell_later', kwargs => '{"what": "same"}', max_runs => 1, task_id => 'same')}
);
foreach my $name ('kept', 'replaced', 'same')
{
	query(
		qq{SELECT taskshed.add_task('tell_later', kwargs => '{"what": "$name"}', max_runs => 1, task_id => '$name')}
	);
	await_blocked($node, 1);
	query("SELECT taskshed.$calls{$name}");
	$holder->query('SELECT pg_advisory_unlock(1)');
	await_no_task($node, $name);
	is( runs_of($node, $name),
		'succeeded 1, succeeded 1',
		"$name while it ran: run as well");
	$holder->query('SELECT pg_advisory_lock(1)');
}
is(done(), 'kept kept replaced second same same', 'with all effects');
query('TRUNCATE done');
query(
	q{CREATE FUNCTION fail_later() RETURNS void LANGUAGE plpgsql AS $$
	BEGIN
		PERFORM pg_advisory_xact_lock_shared(1);
		RAISE EXCEPTION 'on purpose';
	END $$}
);
my $again =
  q{SELECT taskshed.add_task('fail_later', max_attempts => 2, retry_delay => '1 hour', task_id => 'deployed')};
query($again);
await_blocked($node, 1);
query($again);
$holder->query('SELECT pg_advisory_unlock(1)');
await_tries('deployed', 1);
await(
	$node,
	q{SELECT state = 'scheduled' AND attempt = 1 AND run_at > now() + interval '30 minutes' FROM taskshed.tasks WHERE task_id = 'deployed'},
	'the same deploy while it runs gives it no further attempt');
$holder->query('SELECT pg_advisory_lock(1)');
query(
	q{SELECT taskshed.add_task('fail_later', max_attempts => 3, max_runs => 1, every => '1 day', task_id => 'mended in time')}
);
await_blocked($node, 1);
query(
	q{SELECT taskshed.add_task('tell', kwargs => '{"what": "mended"}', max_attempts => 3, max_runs => 1, every => '1 day', task_id => 'mended in time')}
);
$holder->query('SELECT pg_advisory_unlock(1)');
await_no_task($node, 'mended in time');
is( runs_of($node, 'mended in time'),
	'failed 1, succeeded 1',
	'an attempt that would have been followed by others is no run');
query(
	q{SELECT taskshed.add_task('fail', every => '1 day', max_runs => 1, task_id => 'round again')}
);
await_state($node, 'round again', 'failed');
is( query(
		q{SELECT taskshed.update_tasks(jsonb_build_object('run_at', now()), ARRAY['round again'])}
	),
	'1',
	'a task that has failed in its last run gets a time');
await_tries('round again', 2);
query('SELECT taskshed.remove_all_tasks(); TRUNCATE done');

# A run by hand that was cut off has not begun for a time to come.
$holder->query('SELECT pg_advisory_lock(1)');
query(
	q{SELECT taskshed.add_task('tell_later', '2100-01-01', '{"what": "hand"}', task_id => 'far')}
);
query(q{SELECT taskshed.run_task('far')});
await_blocked($node, 1);
query(
	q{SELECT pg_terminate_backend(worker_pid) FROM taskshed.tasks WHERE task_id = 'far'}
);
await_tries('far', 1);
$holder->query('SELECT pg_advisory_unlock(1)');
await_tries('far', 2);
query(
	q{SELECT taskshed.add_task('tell', kwargs => '{"what": "deployed"}', task_id => 'far')}
);
is( query(
		q{SELECT run_at = '2100-01-01' FROM taskshed.tasks WHERE task_id = 'far'}
	),
	't',
	'a task that was run by hand keeps its time when it is replaced');
query('SELECT taskshed.remove_all_tasks(); TRUNCATE done');

# In the order of the array, whatever the names; with one worker, one by one
query(
	q{SELECT taskshed.add_tasks(jsonb_agg(jsonb_build_object('callback', 'tell',
		'kwargs', jsonb_build_object('what', i), 'task_id', CASE WHEN i % 5 > 0 THEN to_char(1000 - i, '0000') END) ORDER BY i))
	FROM generate_series(1, 200) i}
);
await_no_task($node, '%');
is( query(
		'SELECT count(*), count(*) FILTER (WHERE what::integer = n - first + 1) FROM done, (SELECT min(n) AS first FROM done) f'
	),
	'200|200',
	'all have run in the order in which they were added');

$holder->quit;
done_testing();
