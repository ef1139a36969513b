
# Tasks that have failed for good are kept for taskshed.failed_retention, and
# the log mentions it when there are very many of them.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use TaskshedTest;
use Test::More;

my $node = taskshed_node('failed_retention',
	conf => "taskshed.log_failures = off\ntaskshed.history = none");

$node->safe_psql(
	'postgres', q{
CREATE FUNCTION fails() RETURNS void LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'no'; END $$;
});

sub tasks
{
	return $node->safe_psql('postgres',
		q{SELECT string_agg(task_id || ' ' || state, ', ' ORDER BY task_id) FROM taskshed.tasks}
	);
}

sub fail_tasks
{
	my ($task_ids) = @_;

	$node->safe_psql('postgres',
		"SELECT taskshed.add_task('fails', task_id => i::text) FROM $task_ids i"
	);
	await(
		$node,
		q{SELECT count(*) FILTER (WHERE state <> 'failed') = 0 FROM taskshed.tasks
		WHERE task_id NOT IN ('retried', 'recurring')},
		'they have failed');
	return;
}

sub age
{
	my ($task_id, $age) = @_;

	$node->safe_psql(
		'postgres', qq{
		UPDATE _taskshed.alarm SET failed_at = failed_at - interval '$age'
		WHERE id = (SELECT id FROM _taskshed.task WHERE task_id = '$task_id')});
	return;
}

fail_tasks("unnest('{changed,new,old,retried}'::text[])");
age($_,    '70 min') foreach qw(changed old retried);
age('new', '50 min');
$node->safe_psql('postgres',
	q{SELECT taskshed.add_task('fails', every => '1 s', task_id => 'recurring')}
);

# One is retried, later, and another one is being changed just now.
$node->safe_psql('postgres',
	q{SELECT taskshed.update_execution_time('retried', '2100-01-01')});
my $session = session($node);
$session->query(q{BEGIN; SELECT taskshed.pause_task('changed')});

is( tasks(),
	'changed failed, new failed, old failed, recurring scheduled, retried scheduled',
	'by default they are kept')
  if await(
	$node,
	q{SELECT run_count > 0 AND state = 'scheduled' FROM taskshed.tasks WHERE task_id = 'recurring'},
	'the recurring one has failed and goes on');

set_and_reload($node, 'taskshed.failed_retention' => '1h');
await(
	$node,
	q{SELECT NOT EXISTS (SELECT FROM taskshed.tasks WHERE task_id = 'old')},
	'the old one is removed');
like(
	tasks(),
	qr/^changed failed, new failed, recurring \w+, retried scheduled$/,
	'the others are not');

# Whoever was not waited for is looked at again.
$session->query('ROLLBACK');
set_and_reload($node, 'taskshed.failed_retention' => '65min');
await(
	$node,
	q{SELECT NOT EXISTS (SELECT FROM taskshed.tasks WHERE task_id = 'changed')},
	'what was locked goes later');

# Many go in several steps.
set_and_reload($node, 'taskshed.failed_retention' => '-1');
fail_tasks('generate_series(1, 2500)');
set_and_reload($node, 'taskshed.failed_retention' => '0');
await(
	$node,
	q{SELECT count(*) FILTER (WHERE state = 'failed') = 0 FROM taskshed.tasks},
	'all are gone');
await(
	$node,
	q{SELECT failed = 0 FROM taskshed.status},
	'and are not counted any more');
is( $node->safe_psql(
		'postgres', q{
		SELECT count(*) FROM _taskshed.task t FULL JOIN _taskshed.alarm a USING (id)
		WHERE t.id IS NULL OR a.id IS NULL}),
	'0',
	'no half of a task is left');

# The log
set_and_reload($node, 'taskshed.failed_retention' => '-1');
fail_tasks('generate_series(1, 10001)');
my $mention = qr/LOG:  database has 10001 failed tasks/;
$node->wait_for_log($mention);
like(
	slurp_file($node->logfile),
	qr/HINT:  Retry or remove them, or set taskshed\.failed_retention\./,
	'the log says what can be done');

$session->quit;
$node->stop;
done_testing();
