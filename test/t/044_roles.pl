
# Roles that change while they have tasks, due, running and to come: locked out
# and let in again, more or less than they were, and gone.  Others' tasks run on.
#
# Quick: promises 7 and 8

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use TaskshedTest;
use Test::More;

my $node         = taskshed_node('roles');
my $nologin_runs = $node->pg_version >= 17;

$node->safe_psql(
	'postgres', q{
CREATE ROLE app LOGIN;
CREATE ROLE other LOGIN;
CREATE ROLE members NOLOGIN;
REVOKE CONNECT ON DATABASE postgres FROM PUBLIC;
GRANT CONNECT ON DATABASE postgres TO app, other;

-- Is this process still good for what only superusers may?
CREATE FUNCTION climb(what text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	SET SESSION AUTHORIZATION other;
	RESET SESSION AUTHORIZATION;
	PERFORM public.note(what);
END $$;
});

sub as
{
	my ($role, $sql) = @_;
	return $node->safe_psql('postgres', "SET ROLE $role; $sql");
}

# A role with a run in progress, a task behind that and one that recurs is
# locked out by one command, and let in again by another.
sub lock_out
{
	my ($name, $out, $in, $message) = @_;
	my $holder = session($node);
	my $offset = -s $node->logfile;

	$holder->query('SELECT pg_advisory_lock(1)');
	as( 'app', qq{
		SELECT taskshed.add_task('hold', kwargs => '{"what": "running $name"}', task_id => 'running');
		SELECT taskshed.add_task('note', now() + '1 day', '{"what": "waiting $name"}', task_id => 'waiting')}
	);
	await_blocked($node, 1);
	my $pid = $node->safe_psql('postgres',
		q{SELECT worker_pid FROM taskshed.tasks WHERE task_id = 'running'});

	# (what is rolled back changes nothing)
	$node->safe_psql('postgres', "BEGIN; $out; ROLLBACK");
	another_runs($node, 'other', 'meanwhile');
	is( $node->safe_psql(
			'postgres',
			q{SELECT worker_pid FROM taskshed.tasks WHERE task_id = 'running'}
		),
		$pid,
		"$name: rolled back, the run goes on");

	$node->safe_psql('postgres', "DO \$\$ BEGIN $out; END \$\$");
	await_blocked($node, 0);
	await_state($node, 'running', 'due');
	$node->safe_psql('postgres',
		q{SELECT taskshed.update_execution_time('waiting', now(), 'app')});
	await(
		$node,
		"SELECT message = '$message' FROM taskshed.status",
		"$name: status says why");
	like(
		runs_of($node, 'running'),
		qr/interrupted 1$/,
		"$name: the run has ended");
	another_runs($node, 'other', 'meanwhile');
	$holder->query('SELECT pg_advisory_unlock(1)');
	is( $node->safe_psql(
			'postgres',
			q{SELECT string_agg(task_id || ' ' || state, ', ' ORDER BY task_id) FROM taskshed.tasks}
		),
		'running due, waiting due',
		"$name: the tasks wait");
	is( count_in_log(
			$node, qr/LOG:  tasks of a role have to wait: \Q$message\E/,
			$offset),
		1,
		"$name: the log says so, once");

	$node->safe_psql('postgres', $in);
	await_no_task($node, '%');
	is( effects_of($node, "running $name")
		  . effects_of($node, "waiting $name"),
		'11',
		"$name: let in again, it runs");
	await(
		$node,
		'SELECT message IS NULL FROM taskshed.status',
		"$name: and status has nothing to say");
	$holder->quit;
	return;
}

lock_out(
	'REVOKE',
	'REVOKE CONNECT ON DATABASE postgres FROM app',
	'GRANT CONNECT ON DATABASE postgres TO app',
	'role "app" is not permitted to connect to the database');

# However often that happens, it is not the task's fault; nor is a procedure's
# begin, which was recorded, that of a run that is still to be counted.
$node->safe_psql('postgres',
	q{CREATE PROCEDURE hold_in_procedure(what text) LANGUAGE plpgsql AS $$ BEGIN PERFORM public.hold(what); END $$}
);
foreach my $callback (qw(hold hold_in_procedure))
{
	my $holder = session($node);

	$holder->query('SELECT pg_advisory_lock(1)');
	as('app',
		qq{SELECT taskshed.add_task('$callback', kwargs => '{"what": "often $callback"}', task_id => 'often $callback')}
	);
	foreach my $i (1 .. 6)
	{
		await_blocked($node, 1);
		$node->safe_psql('postgres',
			'REVOKE CONNECT ON DATABASE postgres FROM app');
		await_blocked($node, 0);
		await_state($node, "often $callback", 'due');
		$node->safe_psql('postgres',
			'GRANT CONNECT ON DATABASE postgres TO app');
	}
	await_blocked($node, 1);
	$holder->query('SELECT pg_advisory_unlock(1)');
	await_no_task($node, 'often%');
	is(effects_of($node, "often $callback"),
		'1', "$callback: it has run in the end");
	is( runs_of($node, "often $callback"),
		'interrupted 1, ' x 6 . 'succeeded 1',
		'each run is recorded once');
	$holder->quit;
}

# The right may also be a group's.
$node->safe_psql(
	'postgres', q{
GRANT CONNECT ON DATABASE postgres TO members;
REVOKE CONNECT ON DATABASE postgres FROM app;
GRANT members TO app});
lock_out(
	'membership',
	'REVOKE members FROM app',
	'GRANT members TO app',
	'role "app" is not permitted to connect to the database');
$node->safe_psql('postgres', 'GRANT CONNECT ON DATABASE postgres TO app');

if ($nologin_runs)
{
	$node->safe_psql('postgres', 'ALTER ROLE app NOLOGIN');
	as('app',
		q{SELECT taskshed.add_task('note', kwargs => '{"what": "nologin"}')});
	await_no_task($node, '%');
	is(effects_of($node, 'nologin'), '1', 'NOLOGIN is no obstacle');
	$node->safe_psql('postgres', 'ALTER ROLE app LOGIN');
}
else
{
	lock_out(
		'NOLOGIN',
		'ALTER ROLE app NOLOGIN',
		'ALTER ROLE app LOGIN',
		'role "app" is not permitted to log in');
}

# Superusers' tasks
$node->safe_psql('postgres', 'CREATE ROLE boss SUPERUSER LOGIN');
set_and_reload($node, 'taskshed.allow_superuser_tasks' => 'off');
$node->poll_query_until('postgres', 'SHOW taskshed.allow_superuser_tasks',
	'off');
my ($rc, $out, $err) =
  $node->psql('postgres', q{SET ROLE boss; SELECT taskshed.add_task('note')});
like(
	$err,
	qr/ERROR:  tasks cannot run as role "boss", which is a superuser.*HINT:  taskshed.allow_superuser_tasks is off/s,
	'a superuser cannot schedule');
set_and_reload($node, 'taskshed.allow_superuser_tasks' => undef);
$node->poll_query_until('postgres', 'SHOW taskshed.allow_superuser_tasks',
	'on');
as('boss',
	q{SELECT taskshed.add_task('note', now() + '1 day', '{"what": "boss"}', task_id => 'boss')}
);
set_and_reload($node, 'taskshed.allow_superuser_tasks' => 'off');
$node->safe_psql('postgres',
	q{SELECT taskshed.update_execution_time('boss', now(), 'boss')});
await(
	$node,
	q{SELECT message = 'role "boss" is a superuser, and taskshed.allow_superuser_tasks is off' FROM taskshed.status},
	'one that there is waits');
another_runs($node, 'other', 'meanwhile');
is(effects_of($node, 'boss'), '0', 'and has not run');
set_and_reload($node, 'taskshed.allow_superuser_tasks' => undef);
await_no_task($node, '%');
is(effects_of($node, 'boss'), '1', 'until it may');

# A worker does not outlive the rights that it has connected with.
as('boss',
	q{SELECT taskshed.add_task('climb', kwargs => '{"what": "boss climbs"}', task_id => 'climb')}
);
await_no_task($node, 'climb');
is(effects_of($node, 'boss climbs'),
	'1', 'a superuser may be whoever it likes');
my $holder = session($node);
$holder->query('SELECT pg_advisory_lock(1)');
as( 'boss', q{
	SELECT taskshed.add_task('hold', kwargs => '{"what": "boss runs"}', task_id => 'running')}
);
await_blocked($node, 1);
$node->safe_psql('postgres', 'GRANT CONNECT ON DATABASE postgres TO boss');
$node->safe_psql('postgres', 'ALTER ROLE boss NOSUPERUSER');
await(
	$node,
	q{SELECT EXISTS (SELECT FROM taskshed.runs WHERE task_id = 'running' AND status = 'interrupted')},
	'a run of a role that is no superuser any more ends');
$holder->query('SELECT pg_advisory_unlock(1)');
await_no_task($node, 'running');
as('boss',
	q{SELECT taskshed.add_task('climb', kwargs => '{"what": "boss climbs"}', task_id => 'climb')}
);
await_state($node, 'climb', 'failed');
is( $node->safe_psql(
		'postgres',
		q{SELECT last_sqlstate FROM taskshed.tasks WHERE task_id = 'climb'}),
	'42501',
	'afterwards it may not');
is(effects_of($node, 'boss climbs') . effects_of($node, 'boss runs'),
	'11', 'and all has had its effect once');
$node->safe_psql('postgres',
	q{ALTER ROLE boss SUPERUSER; SELECT taskshed.retry_task('climb', 'boss')}
);
await_no_task($node, 'climb');
is(effects_of($node, 'boss climbs'), '2', 'a superuser again, it may');

# How many workers a role may have.
$holder->query('SELECT pg_advisory_lock(1)');
set_and_reload($node, 'taskshed.enabled' => 'off');
set_and_reload(
	$node,
	'taskshed.enabled'              => undef,
	'taskshed.max_workers_per_role' => 2);
as('app',
	q{SELECT taskshed.add_task('hold', kwargs => '{"what": "limited"}', task_id => 'limited ' || i) FROM generate_series(1, 4) i}
);
await_blocked($node, 2);
another_runs($node, 'other', 'meanwhile');
await_blocked($node, 2);
set_and_reload($node, 'taskshed.max_workers_per_role' => 3);
await_blocked($node, 3);
set_and_reload($node, 'taskshed.max_workers_per_role' => undef);
$holder->query('SELECT pg_advisory_unlock(1)');
await_no_task($node, 'limited%');
is(effects_of($node, 'limited'), '4', 'all have run in the end');

# A run is ended although its worker is to leave after it anyway, for another
# role's sake; and until it has left it counts as one of its role.
$node->safe_psql('postgres',
	'CREATE ROLE third LOGIN; GRANT CONNECT ON DATABASE postgres TO third');
set_and_reload(
	$node,
	'taskshed.max_workers'          => 2,
	'taskshed.max_workers_per_role' => 1);
$holder->query('SELECT pg_advisory_lock(1), pg_advisory_lock(2)');
as('app',
	q{SELECT taskshed.add_task('hold', kwargs => '{"what": "leaving"}', task_id => 'leaving')}
);
await_blocked($node, 1);
as('other',
	q{SELECT taskshed.add_task('hold', kwargs => '{"what": "brief", "lock": 2}', task_id => 'brief')}
);
await_blocked($node, 1, 2);
as('third',
	q{SELECT taskshed.add_task('note', kwargs => '{"what": "third"}', task_id => 'third')}
);
sleep 2;
as('app',
	q{SELECT taskshed.add_task('hold', kwargs => '{"what": "leaving"}', task_id => 'leaving too')}
);
$holder->query('SELECT pg_advisory_unlock(2)');
await_no_task($node, 'third');
sleep 1;
await_blocked($node, 1);
$node->safe_psql('postgres',
	'REVOKE CONNECT ON DATABASE postgres FROM app; REVOKE members FROM app');
await_blocked($node, 0);
await_state($node, 'leaving', 'due');
another_runs($node, 'other', 'meanwhile');
$node->safe_psql('postgres', 'GRANT CONNECT ON DATABASE postgres TO app');
$holder->query('SELECT pg_advisory_unlock(1)');
await_no_task($node, '%');
is(effects_of($node, 'leaving'), '2', 'let in again, they run');
set_and_reload(
	$node,
	'taskshed.max_workers'          => undef,
	'taskshed.max_workers_per_role' => undef);

# With a database that is given away goes the right to connect to it.
$node->safe_psql('postgres',
	'CREATE DATABASE theirs OWNER app; REVOKE ALL ON DATABASE theirs FROM PUBLIC'
);
taskshed_database($node, 'theirs');
my $theirs = session($node, 'theirs');
$theirs->query('SELECT pg_advisory_lock(3)');
$node->safe_psql('theirs',
	q{SELECT taskshed.add_task('hold', kwargs => '{"what": "theirs", "lock": 3}', task_id => 'theirs', owner => 'app')}
);
await_blocked($node, 1, 3);
$node->safe_psql('postgres', 'REASSIGN OWNED BY app TO other');
await(
	$node,
	q{SELECT state = 'due' FROM taskshed.tasks WHERE task_id = 'theirs'},
	'REASSIGN OWNED has locked it out there', 'theirs');
$theirs->quit;

# Gone, with a run in progress.
$holder->query('SELECT pg_advisory_lock(1)');
$node->safe_psql('postgres',
	'CREATE ROLE guest LOGIN; GRANT CONNECT ON DATABASE postgres TO members; GRANT members TO guest'
);
my $oid = $node->safe_psql('postgres', q{SELECT 'guest'::regrole::oid});
as( 'guest', q{
	SELECT taskshed.add_task('hold', kwargs => '{"what": "gone running"}', task_id => 'running');
	SELECT taskshed.add_task('note', every => '1 hour', run_at => now() + '1 day', kwargs => '{"what": "gone"}', task_id => 'recurring');
	SELECT taskshed.add_task('note', now() + '1 day', '{"what": "gone"}', task_id => 'once');
	SELECT taskshed.add_task('note', now() + '1 day', '{"what": "gone"}', task_id => 'later')}
);
await_blocked($node, 1);
$node->safe_psql(
	'postgres', q{
	BEGIN;
	SELECT taskshed.update_execution_time('recurring', now(), 'guest'), taskshed.update_execution_time('once', now(), 'guest');
	DROP ROLE guest;
	COMMIT});
await(
	$node, q{
	SELECT count(*) = 3 FROM taskshed.tasks WHERE state = 'failed' AND last_sqlstate = '42704'
		AND task_id IN ('running', 'recurring', 'once')},
	'the tasks of a role that was dropped fail');
await_blocked($node, 0);
$holder->query('SELECT pg_advisory_unlock(1)');
is( $node->safe_psql(
		'postgres',
		q{SELECT DISTINCT last_error FROM taskshed.tasks WHERE state = 'failed'}
	),
	qq{role with OID $oid does not exist any more; it was called "guest"},
	'with a clear message');
is(runs_of($node, 'once'), 'failed 1', 'and that is recorded');
is( $node->safe_psql(
		'postgres',
		q{SELECT state FROM taskshed.tasks WHERE task_id = 'later'}),
	'scheduled',
	'those that are not due wait');
another_runs($node, 'other', 'meanwhile');

# Who gets the name inherits nothing.
$node->safe_psql('postgres', 'CREATE ROLE guest LOGIN');
is(as('guest', 'SELECT count(*) FROM taskshed.tasks'),
	'0', 'a new role of the name sees none of them');
is(as('guest', q{SELECT taskshed.remove_all_tasks()}), '0', 'and has none');
is(effects_of($node, 'gone') . effects_of($node, 'gone running'),
	'00', 'nothing has had an effect');

$holder->quit;
$node->stop;
done_testing();
