
# Nobody waits for a running callback: while it runs, other tasks run, and its
# own task can be paused, moved, replaced and removed at once.  When the run is
# over, the task is what the last change said.
#
# Quick: promise 5

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use TaskshedTest;
use Test::More;

my $node = taskshed_node(
	'nobody_waits', conf => q{
taskshed.max_workers = 24
max_worker_processes = 40
});

# A call that waits for a callback would wait for ever, since the callback
# waits for this test.
$ENV{PGOPTIONS} =
  "-c statement_timeout=$PostgreSQL::Test::Utils::timeout_default" . 's';

$node->safe_psql('postgres',
	'CREATE ROLE app LOGIN; CREATE ROLE other LOGIN');

my $holder = session($node);
my $app    = session($node);
$app->query('SET ROLE app');

# One task for each kind of change, once and recurring, all of them running.
$holder->query('SELECT pg_advisory_lock(1)');
my @changes = qw(pause pauses move moves replace later keep remove removes);
foreach my $change (@changes)
{
	$app->query(
		qq{SELECT taskshed.add_task('hold', kwargs => '{"what": "once_$change"}', task_id => 'once_$change');
		SELECT taskshed.add_task('hold', kwargs => '{"what": "every_$change"}', task_id => 'every_$change',
			every => '1 day')});
}
$app->query(
	q{SELECT taskshed.add_task('hold', kwargs => '{"what": "every_same"}', task_id => 'every_same', every => '1 day');
	SELECT taskshed.add_task('hold', kwargs => '{"what": "every_again"}', task_id => 'every_again', every => '1 day')}
);
$node->safe_psql(
	'postgres', q{
SET ROLE other;
SELECT taskshed.add_task('hold', kwargs => '{"what": "other"}', group_id => 'g');
SELECT taskshed.add_task('hold', kwargs => '{"what": "other"}', group_id => 'g', every => '1 h')}
);
my $running = 2 * @changes + 4;
await_blocked($node, $running);
is( $node->safe_psql(
		'postgres',
		q{SELECT state, count(*) FROM taskshed.tasks GROUP BY state}),
	"running|$running",
	'all show that they are running');
is( $node->safe_psql(
		'postgres', 'SELECT workers, running FROM taskshed.status'),
	"$running|$running",
	'so does the status');

# Others go their way.
$app->query(
	q{SELECT count(taskshed.add_task('note', kwargs => '{"what": "beside"}')) FROM generate_series(1, 200)}
);
await(
	$node,
	q{SELECT count(*) = 200 FROM ledger WHERE what = 'beside'},
	'other tasks have run');

# The changes.
sub at_once
{
	my ($change, $once, $every, $expected) = @_;

	is($app->query(sprintf($once, 'once_' . $change)),
		$expected, "$change of a one-off task returns");
	is($app->query(sprintf($every || $once, 'every_' . $change)),
		$expected, "$change of a recurring task returns");
}

my $far = q{date_trunc('day', now() + interval '2 days')};
at_once('pause',  q{SELECT taskshed.pause_task('%s')},         undef, 't');
at_once('pauses', q{SELECT taskshed.pause_tasks(array['%s'])}, undef, '1');
at_once('move', qq{SELECT taskshed.update_execution_time('%s', $far)},
	undef, 't');
at_once(
	'moves',
	qq{SELECT taskshed.update_execution_times(array[row('%s', $far)::taskshed.task_execution_time])},
	undef,
	'1');
at_once(
	'replace',
	q{SELECT taskshed.add_task('hold', kwargs => '{"what": "new"}', task_id => '%s') IS NOT NULL},
	q{SELECT taskshed.add_task('hold', kwargs => '{"what": "new"}', task_id => '%s', every => '1 day') IS NOT NULL},
	't');
at_once(
	'later',
	qq{SELECT taskshed.add_task('hold', $far, '{"what": "new"}', task_id => '%s') IS NOT NULL},
	qq{SELECT taskshed.add_task('hold', $far, '{"what": "new"}', task_id => '%s', every => '1 day') IS NOT NULL},
	't');
at_once(
	'keep',
	q{SELECT taskshed.add_task('hold', kwargs => '{"what": "kept"}', task_id => '%s', replace_existing => false) IS NOT NULL},
	q{SELECT taskshed.add_task('hold', kwargs => '{"what": "kept"}', task_id => '%s', every => '1 day',
		replace_existing => false) IS NOT NULL},
	't');
at_once('remove',  q{SELECT taskshed.remove_task('%s')},         undef, 't');
at_once('removes', q{SELECT taskshed.remove_tasks(array['%s'])}, undef, '1');
is( $app->query(
		q{SELECT taskshed.add_task('hold', kwargs => '{"what": "every_same"}', task_id => 'every_same', every => '1 day')}
	),
	'every_same',
	'the same deploy script again returns');
is( $app->query(
		q{SELECT taskshed.add_task('hold', kwargs => '{"what": "every_again"}', task_id => 'every_again', every => '1 day',
			replace_existing => false)}
	),
	'every_again',
	'so does the same with replace_existing => false');
is( $node->safe_psql(
		'postgres', q{SET ROLE other; SELECT taskshed.remove_all_tasks()}),
	'2',
	'remove_all_tasks returns');
await_blocked($node, $running);
is( $node->safe_psql(
		'postgres',
		q{SELECT task_id, state, paused_at IS NOT NULL FROM taskshed.tasks WHERE task_id LIKE '%pause%' ORDER BY 1}
	),
	join("\n",
		map { "$_|running|t" }
		  qw(every_pause every_pauses once_pause once_pauses)),
	'what is paused while it runs shows both');
is( $node->safe_psql(
		'postgres', q{SELECT count(*) FROM ledger WHERE what <> 'beside'}),
	'0',
	'meanwhile no run has ended');

# Not even who writes the tables anew, so that no row stays in its place, waits.
$node->safe_psql('postgres', "VACUUM FULL _taskshed.$_")
  foreach qw(task alarm edge);

# The end of the runs; those that were asked to do so have run again.
$holder->query('SELECT pg_advisory_unlock(1)');
await(
	$node, q{
	SELECT array_agg(what || '=' || n ORDER BY what) @> array['new=2', 'kept=2']
	FROM (SELECT what, count(*) AS n FROM ledger GROUP BY what) x},
	'what was replaced has run again');
await(
	$node,
	q{SELECT NOT EXISTS (SELECT FROM taskshed.tasks WHERE state IN ('running', 'due'))},
	'all runs have ended');
foreach my $change (@changes)
{
	is(effects_of($node, "once_$change"),
		1, "once_$change: the run went on to its end");
	is(effects_of($node, "every_$change"),
		1, "every_$change: the run went on to its end");
}
is(effects_of($node, 'other'), 2, 'so did those of the other role');
is(plan_of($node, 'once_pause'), '', 'a one-off paused while it ran is done');
is(plan_of($node, 'once_pauses'), '', 'also with pause_tasks');
is( plan_of($node, 'every_pause'),
	'paused|1|later|every_pause',
	'a recurring one is paused');
is( plan_of($node, 'every_pauses'),
	'paused|1|later|every_pauses',
	'also with pause_tasks');
is(plan_of($node, 'once_move'),  'scheduled|1|in 2 days|once_move',  'moved');
is(plan_of($node, 'once_moves'), 'scheduled|1|in 2 days|once_moves', 'moved');
is(plan_of($node, 'every_move'), 'scheduled|1|in 2 days|every_move', 'moved');
is(plan_of($node, 'every_moves'),
	'scheduled|1|in 2 days|every_moves', 'moved');
is(plan_of($node, 'once_replace'),
	'', 'a one-off replaced while it ran has run again');
is(plan_of($node, 'every_replace'),
	'scheduled|2|later|new', 'a recurring one too');
is( plan_of($node, 'once_later'),
	'scheduled|0|in 2 days|new',
	'replaced, for later');
is( plan_of($node, 'every_later'),
	'scheduled|1|in 2 days|new',
	'replaced, for later');
is(plan_of($node, 'once_keep'),
	'', 'replace_existing => false has had it run again');
is( plan_of($node, 'every_keep'),
	'scheduled|2|later|kept',
	'a recurring one too');
is(plan_of($node, 'once_remove') . plan_of($node, 'once_removes'),
	'', 'removed');
is(plan_of($node, 'every_remove') . plan_of($node, 'every_removes'),
	'', 'removed');
is( effects_of($node, 'every_same') . ' ' . plan_of($node, 'every_same'),
	'1 scheduled|1|later|every_same',
	'the same once more: nothing changed');
is( effects_of($node, 'every_again') . ' ' . plan_of($node, 'every_again'),
	'2 scheduled|2|later|every_again',
	'with replace_existing => false it has run again');
is( $node->safe_psql(
		'postgres',
		q{SELECT count(*) FROM taskshed.tasks WHERE owner = 'other'}),
	'0',
	'all tasks of the other role are gone');
$app->query('SELECT taskshed.remove_all_tasks()');

# A run that ends waits for a change of its task that is not committed yet, and
# nobody waits with it.
sub uncommitted
{
	my ($change, $end, $task_id) = @_;

	$holder->query('SELECT pg_advisory_lock(2)');
	$node->safe_psql('postgres',
		qq{SET ROLE app; SELECT taskshed.add_task('hold', kwargs => '{"what": "$task_id", "lock": 2}', task_id => '$task_id')}
	);
	await_blocked($node, 1, 2);
	$app->query("BEGIN; $change");
	$holder->query('SELECT pg_advisory_unlock(2)');
	await(
		$node,
		q{SELECT count(*) = 1 FROM pg_locks JOIN pg_stat_activity USING (pid)
		WHERE NOT granted AND locktype = 'transactionid' AND backend_type = 'taskshed worker'},
		'the run waits for the change');
	$node->safe_psql('postgres',
		qq{SET ROLE app; SELECT count(taskshed.add_task('note', kwargs => '{"what": "by $task_id"}')) FROM generate_series(1, 50)}
	);
	await(
		$node,
		"SELECT count(*) = 50 FROM ledger WHERE what = 'by $task_id'",
		'others have run');
	$app->query($end);
	await(
		$node,
		q{SELECT NOT EXISTS (SELECT FROM taskshed.tasks WHERE state IN ('running', 'due'))},
		'the run has ended');
	return effects_of($node, $task_id) . ' ' . plan_of($node, $task_id);
}

my $move = qq{SELECT taskshed.update_execution_time('%s', $far)};
is( uncommitted(sprintf($move, 'u1'), 'COMMIT', 'u1'),
	'1 scheduled|1|in 2 days|u1',
	'a move that was committed stands');
is(uncommitted(sprintf($move, 'u2'), 'ROLLBACK', 'u2'),
	'1 ', 'a move that was rolled back never was');
is(uncommitted(q{SELECT taskshed.remove_task('u3')}, 'COMMIT', 'u3'),
	'1 ', 'a removal that was committed stands');
is(uncommitted(q{SELECT taskshed.remove_task('u4')}, 'ROLLBACK', 'u4'),
	'1 ', 'a removal that was rolled back never was');
is(uncommitted(q{SELECT taskshed.pause_task('u5')}, 'COMMIT', 'u5'),
	'1 ', 'a pause that was committed: the one-off is done');

# In a deadlock with somebody who changes the task, the run gives way and is
# tried again, whoever was first.
$node->safe_psql(
	'postgres', q{
CREATE TABLE counter (n integer);
INSERT INTO counter VALUES (0);
GRANT ALL ON counter TO PUBLIC;
CREATE FUNCTION count_and_hold(what text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	UPDATE public.counter SET n = n + 1;
	PERFORM public.hold(what);
END $$});
foreach my $first ('the session', 'the run')
{
	(my $task_id = $first) =~ s/ /_/;
	$holder->query('SELECT pg_advisory_lock(1)');
	$node->safe_psql('postgres',
		qq{SET ROLE app; SELECT taskshed.add_task('count_and_hold', kwargs => '{"what": "$task_id"}', task_id => '$task_id')}
	);
	await_blocked($node, 1);
	$app->query("BEGIN; SELECT taskshed.pause_task('$task_id')");
	$app->send('UPDATE counter SET n = n + 10') if $first eq 'the session';
	await(
		$node,
		q{SELECT count(*) = 1 FROM pg_locks WHERE NOT granted AND locktype = 'transactionid'},
		'the session waits') if $first eq 'the session';
	$holder->query('SELECT pg_advisory_unlock(1)');

	if ($first eq 'the run')
	{
		await(
			$node,
			q{SELECT count(*) = 1 FROM pg_locks WHERE NOT granted AND locktype = 'transactionid'},
			'the run waits');
		$app->send('UPDATE counter SET n = n + 10');
	}
	is($app->result, '', "deadlock, $first waits first: the session goes on");
	is($app->query('COMMIT'), '', 'and commits');
	$app->query("SELECT taskshed.resume_task('$task_id')");
	await_no_task($node, 'the_%');
	is(effects_of($node, $task_id), 1, 'the run is tried again');
}
is($node->safe_psql('postgres', 'SELECT n FROM counter'),
	'22', 'all had their effect once');

$app->quit;
$holder->quit;
$node->stop;
done_testing();
