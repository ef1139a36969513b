
# pg_dump takes the tasks along: restored into another database they are what
# they were, paused ones paused, and what tasks that run after others have waited
# for already is not waited for again.  They are held there until activate(), and
# run then.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use TaskshedTest;
use Test::More;

my $node = taskshed_node('dump');
my $dump = $node->basedir . '/dump';

$node->safe_psql(
	'postgres', q{
CREATE ROLE app LOGIN;
CREATE FUNCTION fails() RETURNS void LANGUAGE sql AS 'SELECT 1/0';
CREATE FUNCTION gives() RETURNS text LANGUAGE sql AS $$SELECT 'a result'$$;
CREATE FUNCTION told() RETURNS void LANGUAGE sql AS $$
	SELECT note((SELECT 'told of ' || string_agg(task_id || ' ' || status || coalesce(' ' || result, ''), ', ' ORDER BY task_id)
	FROM taskshed.parent_results())) $$;
SET ROLE app;
SELECT taskshed.add_task('note', now() + interval '1 day', '{"what": "once"}', task_id => 'once', group_id => 'g');
SELECT taskshed.add_task('note', now() + interval '1 day', '{"what": "daily"}', task_id => 'daily', every => '1 day',
	catch_up => 'skip', timezone => 'America/New_York');
SELECT taskshed.add_task('note', now() + interval '1 day', '{"what": "paused"}', task_id => 'paused', paused => true);
SELECT taskshed.add_task('note', now() - interval '1 day', '{"what": "overdue"}', task_id => 'overdue', paused => true);
SELECT taskshed.add_task('fails', task_id => 'fails');
SELECT taskshed.add_task('note', kwargs => '{"what": "has run"}', task_id => 'has run', every => '1 day');
SELECT taskshed.add_tasks('[{"callback": "gives", "task_id": "given"}, {"callback": "note", "task_id": "awaited", "run_at": "2100-01-01",
	"kwargs": {"what": "awaited"}}, {"callback": "told", "task_id": "waits", "after": ["given", "awaited"], "after_status": "ended"},
	{"callback": "told", "task_id": "each", "after": ["daily"]}]')}
);
await(
	$node, q{
	SELECT count(*) = 3 FROM taskshed.tasks WHERE task_id IN ('fails', 'has run') AND run_count = 1
		AND state <> 'running' OR task_id = 'waits' AND state = 'waiting' AND waiting_for = '{awaited}'},
	'three have run');

my $all    = q{SELECT t FROM taskshed.tasks AS t ORDER BY task_id};
my $before = $node->safe_psql('postgres', $all);
foreach my $format ('plain', 'custom')
{
	$node->safe_psql('postgres', "CREATE DATABASE $format");
	$node->command_ok(
		[
			'pg_dump', "--format=$format", '--file', "$dump.$format",
			'postgres'
		],
		"pg_dump, $format");
	$node->command_ok(
		$format eq 'plain'
		? [
			'psql',            '-X', '-q',            '-v',
			'ON_ERROR_STOP=1', '-f', "$dump.$format", $format
		  ]
		: [
			'pg_restore', '--exit-on-error',
			'--dbname',   $format,
			"$dump.$format"
		],
		"restored, $format");
	is( $node->safe_psql($format, $all),
		$before =~ s/,(?:due|scheduled|waiting),/,held,/gr,
		"$format: the tasks are what they were");
	await(
		$node,
		q{SELECT state = 'held' FROM taskshed.status WHERE database = current_database()},
		"$format: they are held",
		$format);
	$node->safe_psql($format, 'SELECT taskshed.activate()');
	is($node->safe_psql($format, $all),
		$before, "$format: they still are after activate()");

	# New tasks do not collide with those that came along, and both run.
	$node->safe_psql(
		$format, q{
		SET ROLE app;
		SELECT count(taskshed.add_task('note', kwargs => '{"what": "new"}')) FROM generate_series(1, 50);
		SELECT taskshed.update_execution_time(t, now()) FROM unnest('{daily,awaited}'::text[]) AS t;
		SELECT taskshed.resume_task('overdue')});
	await(
		$node, q{
		SELECT array_agg(what || ' ' || n ORDER BY what) = array['awaited 1', 'daily 1', 'has run 1', 'new 50', 'overdue 1',
			'told of awaited succeeded, given succeeded a result 1', 'told of daily succeeded 1']
		FROM (SELECT what, count(*) AS n FROM ledger GROUP BY what) AS x},
		"$format: they run in the new database", $format);
	is( $node->safe_psql(
			$format, q{SELECT task_id, state FROM taskshed.tasks ORDER BY 1}),
		"daily|scheduled\neach|waiting\nfails|failed\nhas run|scheduled\nonce|scheduled\npaused|paused",
		"$format: and the others wait");
}
is($node->safe_psql('postgres', $all),
	$before, 'the first database has not changed');
is($node->safe_psql('postgres', 'SELECT count(*) FROM ledger'),
	'1', 'and has run nothing');

$node->stop;
done_testing();
