
# What is told where nothing runs: the view status has a row for the database
# also in a template, and run_task does what run_tasks does, for one.  (The
# mistake is an empty answer, which says nothing.)  Standbys are in 053_standby,
# a server without the library in 001_preload.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use TaskshedTest;
use Test::More;

my $node = taskshed_node('told');

$node->safe_psql('postgres', 'CREATE ROLE app LOGIN; CREATE DATABASE mold');
taskshed_database($node, 'mold');
$node->safe_psql(
	'mold', q{
SELECT taskshed.add_task('note', now() + interval '1 day', '{"what": "x"}', task_id => 'x', owner => 'app');
SELECT taskshed.add_task('note', now() + interval '1 day', '{"what": "y"}', task_id => 'y')}
);
await_status($node, 'mold', 'active');

$node->safe_psql('postgres', 'ALTER DATABASE mold IS_TEMPLATE true');
await(
	$node,
	q{SELECT state = 'template' FROM taskshed.status WHERE database = current_database()},
	'a template',
	'mold');
$node->safe_psql('mold',
	q{SELECT taskshed.update_execution_time(t, now() - interval '1 hour', o) FROM (VALUES ('x', 'app'), ('y', NULL)) AS v (t, o)}
);
my $status =
  q{SELECT state, scheduler_pid, workers, running, due, now() - oldest_due > interval '1 hour', failed, next_wakeup, message
	FROM taskshed.status WHERE database = current_database()};
is( $node->safe_psql('mold', $status),
	'template||0|0|2|t|0||the database is a template, so tasks wait',
	'status says why nothing runs there, and what waits');
is( psql_as($node, 'app', $status, 'mold'),
	'template||0|0|1|t|0||the database is a template, so tasks wait',
	'... also to those who see no more than their own tasks');
is( $node->safe_psql(
		'postgres',
		q{SELECT count(*) FROM taskshed.status WHERE database = 'mold'}),
	'0',
	'... but not elsewhere');
$node->safe_psql('postgres', 'ALTER DATABASE mold IS_TEMPLATE false');
await($node, 'SELECT count(*) = 2 FROM ledger', 'they run', 'mold');
await_status($node, 'mold', 'active');

# run_task
$node->safe_psql('postgres',
	q{SELECT taskshed.add_task('note', now() + interval '1 day', '{"what": "by hand"}', task_id => 'x', owner => 'app', every => '1 day', paused => true)}
);
my $before =
  $node->safe_psql('postgres',
	q{SELECT run_at, paused_at FROM taskshed.fetch_task('x', 'app')});
is(psql_as($node, 'app', q{SELECT taskshed.run_task('x')}), 't', 'run_task');
await($node, q{SELECT count(*) = 1 FROM ledger WHERE what = 'by hand'},
	'it has run');
is( $node->safe_psql(
		'postgres', q{SELECT taskshed.run_task('x', owner => 'app')}),
	't',
	'run_task, for another role');
await(
	$node,
	q{SELECT count(*) = 2 FROM ledger WHERE what = 'by hand'},
	'it has run again');
await_state($node, 'x', 'paused');
is( $node->safe_psql(
		'postgres',
		q{SELECT run_at, paused_at FROM taskshed.fetch_task('x', 'app')}),
	$before,
	'its schedule is as it was');

# As the manual says: a task that waits for another attempt goes on waiting, and
# has it at once when it is moved.
$node->safe_psql(
	'postgres', q{
CREATE FUNCTION depends() RETURNS void LANGUAGE sql AS 'SELECT 1/0';
SELECT taskshed.add_task('depends', task_id => 'waits', max_attempts => 2, retry_delay => '1 hour', owner => 'app')}
);
await(
	$node,
	q{SELECT state = 'scheduled' AND attempt = 1 FROM taskshed.tasks WHERE task_id = 'waits'},
	'a task waits for its second attempt');
$before = $node->safe_psql('postgres',
	q{SELECT run_at, attempt, state FROM taskshed.tasks WHERE task_id = 'waits'}
);
$node->safe_psql(
	'postgres', q{
CREATE OR REPLACE FUNCTION depends() RETURNS void LANGUAGE sql AS '';
SELECT taskshed.run_task('waits', 'app')});
await(
	$node, q{
	SELECT count(*) = 1 FROM taskshed.runs WHERE task_id = 'waits' AND status = 'succeeded'},
	'a run by hand beside that');
await(
	$node, qq{
	SELECT (run_at, attempt, state) IS NOT DISTINCT FROM
		(split_part('$before', '|', 1)::timestamptz, split_part('$before', '|', 2)::integer, split_part('$before', '|', 3))
	FROM taskshed.tasks WHERE task_id = 'waits'},
	'it waits as before');
$node->safe_psql('postgres',
	q{SELECT taskshed.update_execution_time('waits', now(), 'app')});
await_no_task($node, 'waits');
is( $node->safe_psql(
		'postgres',
		q{SELECT string_agg(status, ' ' ORDER BY finished_at, run_id) FROM taskshed.runs WHERE task_id = 'waits'}
	),
	'failed succeeded succeeded',
	'moved, it has its attempt');

$node->stop;
done_testing();
