
# taskshed.max_tasks_per_role: tasks that have run make room for others, callbacks
# are bound by their role's limit, a restart changes nothing, and sessions that
# add tasks as fast as they can never have more of them than they may.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use TaskshedTest;
use Test::More;

my $node   = taskshed_node('max_tasks');
my $limit  = qr/53400: role "tenant" cannot have more tasks.*The limit is 3/s;
my $count  = q{SELECT count(*) FROM taskshed.tasks WHERE owner = 'tenant'};
my $tenant = $node->connstr('postgres') . ' user=tenant';

$node->safe_psql(
	'postgres', q{
CREATE ROLE tenant LOGIN;
ALTER ROLE tenant SET taskshed.max_tasks_per_role = 3;
CREATE FUNCTION adds(n integer) RETURNS bigint LANGUAGE sql AS $$
	SELECT count(taskshed.add_task('public.note', '2100-01-01', '{"what": "added"}')) FROM generate_series(1, n)
$$});

# Runs SQL as the tenant; returns what it prints, or its error.
sub as_tenant
{
	my ($sql) = @_;
	my ($rc, $out, $err) = $node->psql(
		'postgres',
		"\\set VERBOSITY verbose\n$sql",
		connstr => $tenant);

	return $rc == 0 ? $out : $err;
}

# Tasks that have run
foreach my $round (1 .. 3)
{
	is( as_tenant(
			q{SELECT count(taskshed.add_task('note', kwargs => '{"what": "run"}')) FROM generate_series(1, 3)}
		),
		'3',
		"round $round");
	await($node, "SELECT ($count) = 0", 'they have run');
}

# A callback: its own task is one of those that count.
as_tenant(
	q{SELECT taskshed.add_task('adds', kwargs => '{"n": 3}', task_id => 'adds')}
);
await_state($node, 'adds', 'failed');
is( $node->safe_psql('postgres', q{SELECT last_sqlstate FROM taskshed.tasks}),
	'53400',
	'a callback is bound by the limit of its role');
is(as_tenant('SELECT adds(2)'), '2', 'the failed task counts');
like(as_tenant('SELECT adds(1)'), $limit, 'as the third');

# After a restart
$node->restart;
like(as_tenant('SELECT adds(1)'), $limit, 'the limit holds after a restart');
$node->safe_psql('postgres', q{SELECT taskshed.remove_all_tasks('tenant')});
is(as_tenant('SELECT adds(3)'), '3', 'and what was removed does not count');

# Rows that come by another way than the functions: they count at once.
$node->safe_psql(
	'postgres', q{
SELECT taskshed.remove_all_tasks('tenant');
SELECT taskshed.add_task('public.note', '2100-01-01', '{"what": "restored"}', owner => 'tenant')
FROM generate_series(1, 3);
CREATE TABLE t AS SELECT * FROM _taskshed.task;
CREATE TABLE a AS SELECT * FROM _taskshed.alarm;
SELECT taskshed.remove_all_tasks('tenant')});
is(as_tenant('SELECT adds(1)'), '1', 'one counted');
$node->safe_psql('postgres',
	q{INSERT INTO _taskshed.task SELECT * FROM t; INSERT INTO _taskshed.alarm SELECT * FROM a}
);
like(as_tenant('SELECT adds(1)'), $limit, 'restored ones count');
$node->safe_psql('postgres', q{SELECT taskshed.remove_all_tasks('tenant')});

# Many sessions at once, which add, replace, remove and roll back: at no time
# are there more tasks than there may be.
$node->safe_psql(
	'postgres', q{
CREATE TABLE scrambled (refused integer, most integer, too_many text);
GRANT ALL ON scrambled TO tenant;
CREATE PROCEDURE scramble() LANGUAGE plpgsql AS $$
DECLARE
	id text;
	refused integer := 0;
	most integer := 0;
	there integer;
	which text;
	too_many text;
BEGIN
	FOR i IN 1 .. 2000 LOOP
		id := floor(random() * 6);
		BEGIN
			IF random() < 0.3 THEN
				PERFORM taskshed.remove_task(id);
			ELSE
				PERFORM taskshed.add_task('public.note', '2100-01-01', '{"what": "scrambled"}', task_id => id,
					group_id => floor(random() * 9)::text);
			END IF;
			IF random() < 0.1 THEN
				RAISE division_by_zero;
			END IF;
		EXCEPTION
			WHEN division_by_zero OR deadlock_detected THEN
			WHEN configuration_limit_exceeded THEN
				refused := refused + 1;
		END;
		SELECT count(*), string_agg(task_id, ' ' ORDER BY task_id) INTO there, which
		FROM taskshed.tasks WHERE owner = 'tenant';
		most := greatest(most, there);
		IF there > 3 THEN
			too_many := concat_ws(', ', too_many, which);
		END IF;
		IF random() < 0.5 THEN
			COMMIT;
		END IF;
	END LOOP;
	INSERT INTO scrambled VALUES (refused, most, too_many);
END $$});
my @sessions = map { session($node) } 1 .. 4;
foreach my $session (@sessions)
{
	$session->query(
		"SET taskshed.max_tasks_per_role = 3; SET deadlock_timeout = '10ms'; SET ROLE tenant"
	);
	$session->send('CALL scramble()');
}
is($_->result, '', 'a session has done its changes') foreach @sessions;
is( $node->safe_psql(
		'postgres',
		'SELECT count(*), min(refused) > 0, max(most), max(too_many) FROM scrambled'
	),
	'4|t|3|',
	'there never were too many');
$_->quit foreach @sessions;

$node->stop;
done_testing();
