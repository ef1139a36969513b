
# Settings: those of taskshed do what they say, from one moment to the next;
# those of roles and databases apply to callbacks and to nothing else.  And
# what pg_stat_activity tells, and that nothing of one run's session is left to
# the next.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use TaskshedTest;
use Test::More;

my $node   = taskshed_node('settings');
my $holder = session($node);

$node->safe_psql('postgres',
	'CREATE ROLE app LOGIN; CREATE ROLE reader LOGIN; GRANT pg_read_all_stats TO reader; CREATE ROLE nobody LOGIN'
);

# Adds a task as app.
sub add
{
	my ($callback, $kwargs, $more) = @_;

	$node->safe_psql('postgres',
		"SET ROLE app; SELECT taskshed.add_task('$callback', kwargs => '$kwargs'"
		  . (defined $more ? ", $more" : '')
		  . ')');
	return;
}

# taskshed.enabled
set_and_reload($node, 'taskshed.enabled' => 'off');
add('note', '{"what": "off"}');
is( $node->safe_psql(
		'postgres', 'SELECT state, workers FROM taskshed.status'),
	'disabled|0',
	'the status tells that it is off');
await($node, q{SELECT state = 'due' FROM taskshed.tasks}, 'the task is due');
is($node->safe_psql('postgres', 'SELECT count(*) FROM ledger'),
	'0', 'and does not run');
my ($rc, $stdout, $stderr) = $node->psql(
	'postgres',
	q{SELECT count(taskshed.add_task('note', '2100-01-01', '{"what": "never"}', task_id => i::text)) FROM generate_series(1, 2) i;
	SELECT taskshed.add_tasks('[{"callback": "note", "kwargs": {"what": "never"}, "run_at": "2100-01-01", "task_id": "3"}]');
	SELECT taskshed.remove_tasks('{1,2,3}')});
is(() = $stderr =~ /WARNING:  taskshed is disabled, so tasks wait/g,
	2, 'whoever schedules is told so, once a transaction');
set_and_reload($node, 'taskshed.enabled' => undef);
await_effects($node, 'off', 1);

# for one database
$node->safe_psql('postgres',
	'ALTER DATABASE postgres SET taskshed.enabled = off');
$node->safe_psql('postgres',
	q{SELECT pg_terminate_backend(scheduler_pid) FROM taskshed.status});
await(
	$node,
	q{SELECT state = 'disabled' FROM taskshed.status},
	'off for this database');
add('note', '{"what": "off here"}');
await($node, q{SELECT state = 'due' FROM taskshed.tasks}, 'the task is due');
$node->safe_psql('postgres',
	'ALTER DATABASE postgres RESET taskshed.enabled');
$node->safe_psql('postgres',
	q{SELECT pg_terminate_backend(scheduler_pid) FROM taskshed.status});
await_effects($node, 'off here', 1);

# taskshed.max_workers
$holder->query('SELECT pg_advisory_lock(1)');
set_and_reload($node, 'taskshed.max_workers' => '2');
add('hold', qq({"what": "two", "lock": 1})) foreach (1 .. 6);
await_blocked($node, 2);
is( $node->safe_psql(
		'postgres', 'SELECT workers, running FROM taskshed.status'),
	'2|2',
	'two workers');
set_and_reload($node, 'taskshed.max_workers' => '5');
await_blocked($node, 5);
is( $node->safe_psql(
		'postgres', 'SELECT workers, running FROM taskshed.status'),
	'5|5',
	'five workers');
set_and_reload($node, 'taskshed.max_workers' => '1');
$holder->query('SELECT pg_advisory_unlock(1)');
await_effects($node, 'two', 6);
await($node, 'SELECT workers = 1 FROM taskshed.status', 'four have left');
is( $node->safe_psql(
		'postgres',
		q{SELECT count(DISTINCT pid) <= 5 FROM ledger WHERE what = 'two'}),
	't',
	'there were five at most');
set_and_reload($node, 'taskshed.max_workers' => undef);

# taskshed.worker_idle_timeout
set_and_reload($node, 'taskshed.worker_idle_timeout' => '100ms');
add('note', '{"what": "idle"}');
await_effects($node, 'idle', 1);
await(
	$node,
	q{SELECT count(*) = 0 FROM pg_stat_activity WHERE backend_type = 'taskshed worker'},
	'idle workers have left');
set_and_reload($node, 'taskshed.worker_idle_timeout' => '0');
add('note', '{"what": "no time"}') foreach (1 .. 3);
await_effects($node, 'no time', 3);
await(
	$node,
	'SELECT workers = 0 FROM taskshed.status',
	'idle workers have left');
set_and_reload($node, 'taskshed.worker_idle_timeout' => undef);

# taskshed.synchronous_commit
$node->safe_psql(
	'postgres', q{
CREATE FUNCTION tell(name text, what text DEFAULT '') RETURNS void LANGUAGE sql AS $$
	SELECT public.note(what || name || '=' || current_setting(name));
$$;
CREATE FUNCTION changes(setting text, value text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	PERFORM set_config(setting, value, false);
	PERFORM public.tell(setting, 'changed ');
END $$});
add('tell', '{"name": "synchronous_commit"}');
await_effects($node, 'synchronous_commit=off', 1);
set_and_reload($node, 'taskshed.synchronous_commit' => 'local');
await(
	$node,
	q{SELECT setting = 'local' FROM pg_settings WHERE name = 'taskshed.synchronous_commit'},
	'the setting has changed');
add('tell', '{"name": "synchronous_commit", "what": "then "}');
await_effects($node, 'then synchronous_commit=local', 1);
add('changes', '{"setting": "synchronous_commit", "value": "on"}');
await_effects($node, 'changed synchronous_commit=on', 1);
add('tell', '{"name": "synchronous_commit", "what": "later "}');
await_effects($node, 'later synchronous_commit=local', 1);

# (a worker that is busy when it changes has it from its next run on)
$holder->query('SELECT pg_advisory_lock(1)');
set_and_reload($node, 'taskshed.max_workers' => 1);
add('hold', '{"what": "busy"}');
await_blocked($node, 1);
set_and_reload($node, 'taskshed.synchronous_commit' => 'remote_write');
await(
	$node,
	q{SELECT setting = 'remote_write' FROM pg_settings WHERE name = 'taskshed.synchronous_commit'},
	'the setting has changed again');
add('tell', '{"name": "synchronous_commit", "what": "busy "}');
$holder->query('SELECT pg_advisory_unlock(1)');
await_effects($node, 'busy synchronous_commit=remote_write', 1);
set_and_reload($node, 'taskshed.max_workers'        => undef);
set_and_reload($node, 'taskshed.synchronous_commit' => undef);

# taskshed.log_failures
$node->safe_psql('postgres',
	q{CREATE FUNCTION fails() RETURNS void LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'oh'; END $$}
);
my $log = -s $node->logfile;
add('fails', '{}', q{task_id => 'f1'});
$node->wait_for_log(qr/WARNING:  task "f1"/, $log);
set_and_reload($node, 'taskshed.log_failures' => 'log');
add('fails', '{}', q{task_id => 'f2'});
$node->wait_for_log(qr/LOG:  task "f2"/, $log);
set_and_reload($node, 'taskshed.log_failures' => 'off');
add('fails', '{}', q{task_id => 'f3'});
await(
	$node,
	q{SELECT state = 'failed' FROM taskshed.tasks WHERE task_id = 'f3'},
	'it has failed');
unlike(slurp_file($node->logfile, $log), qr/task "f3"/, 'nothing in the log');
set_and_reload($node, 'taskshed.log_failures' => undef);
$node->safe_psql('postgres',
	'SET ROLE app; SELECT taskshed.remove_all_tasks()');

# Settings are checked, and not for everybody.
foreach my $setting (
	'enabled = maybe',
	'max_workers = 0',
	'worker_idle_timeout = -1',
	'synchronous_commit = maybe',
	'log_failures = maybe',
	'no_such_setting = 1')
{
	isnt($node->psql('postgres', "SET taskshed.$setting"),
		0, "wrong: $setting");
}
foreach my $setting (
	'enabled = off',
	'max_workers = 5',
	'worker_idle_timeout = 5',
	'synchronous_commit = on',
	'log_failures = off')
{
	isnt($node->psql('postgres', "SET ROLE app; SET taskshed.$setting"),
		0, "not for everybody: $setting");
}

# What the role has set for itself applies to its callbacks, and does not
# disturb what is written about them.
$node->safe_psql(
	'postgres', q{
ALTER ROLE app SET default_transaction_read_only = on;
ALTER ROLE app SET default_transaction_isolation = 'serializable';
ALTER ROLE app SET default_transaction_deferrable = on;
ALTER ROLE app SET lock_timeout = '77ms';
ALTER ROLE app SET statement_timeout = '88ms';
ALTER ROLE app SET search_path = 'pg_temp';
ALTER ROLE app SET synchronous_commit = 'on';
ALTER ROLE app SET row_security = off;
ALTER ROLE app SET session_replication_role = replica;
ALTER ROLE app SET log_statement = 'all';
CREATE FUNCTION tells(lock integer) RETURNS text LANGUAGE sql AS $$
	SELECT pg_advisory_xact_lock_shared(lock);
	SELECT string_agg(name || '=' || current_setting(name), ' ' ORDER BY name COLLATE "C")
	FROM unnest(array['transaction_read_only', 'transaction_isolation', 'transaction_deferrable', 'lock_timeout',
		'search_path', 'session_replication_role', 'row_security']) AS name
$$;
CREATE FUNCTION raises(lock integer) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
	RAISE EXCEPTION '%', public.tells(lock);
END $$;
SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type = 'taskshed worker'}
);
$holder->query('SELECT pg_advisory_lock(1)');
$node->safe_psql(
	'postgres', q{
SELECT taskshed.add_task('public.raises', kwargs => '{"lock": 2}', task_id => 'raises', owner => 'app');
SELECT taskshed.add_task('public.tells', kwargs => '{"lock": 2}', task_id => 'once', owner => 'app');
SELECT taskshed.add_task('public.tells', kwargs => '{"lock": 2}', task_id => 'every', every => '1 day', owner => 'app')}
);
await_no_task($node, 'once');
await(
	$node,
	q{SELECT count(*) = 2 FROM taskshed.tasks WHERE run_count = 1 AND state IN ('failed', 'scheduled')},
	'all have run');
is( $node->safe_psql(
		'postgres',
		q{SELECT last_error FROM taskshed.tasks WHERE task_id = 'raises'}),
	'lock_timeout=77ms row_security=off search_path=pg_temp session_replication_role=replica '
	  . 'transaction_deferrable=off transaction_isolation=serializable transaction_read_only=on',
	'callbacks have the settings of their role, but wait for no safe snapshot'
);
is( $node->safe_psql(
		'postgres',
		q{SELECT last_status, run_at > now() FROM taskshed.tasks WHERE task_id = 'every'}
	),
	'succeeded|t',
	'a recurring one goes on');

# lock_timeout hits the callback, and not the end of its run, which waits for
# a change of its task that is not committed.
$node->safe_psql(
	'postgres', q{
ALTER ROLE app RESET default_transaction_read_only;
ALTER ROLE app RESET session_replication_role;
CREATE FUNCTION tries_lock() RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	WHILE NOT pg_try_advisory_xact_lock_shared(1) LOOP
		PERFORM pg_sleep(0.01);
	END LOOP;
	PERFORM public.note('has the lock');
END $$;
SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type = 'taskshed worker';
SELECT taskshed.add_task('public.tells', kwargs => '{"lock": 1}', task_id => 'waits', every => '1 day', owner => 'app');
SELECT taskshed.add_task('public.tries_lock', task_id => 'tries', every => '1 day', owner => 'app')}
);
await(
	$node,
	q{SELECT last_sqlstate = '55P03' FROM taskshed.tasks WHERE task_id = 'waits'},
	'the lock_timeout of the role has hit a callback');
await(
	$node,
	q{SELECT state = 'running' FROM taskshed.tasks WHERE task_id = 'tries'},
	'the other is running');
my $other = session($node);
$other->query(q{BEGIN; SELECT taskshed.pause_task('tries', 'app')});
$holder->query('SELECT pg_advisory_unlock(1)');
await(
	$node, q{
	SELECT count(*) = 1 FROM pg_locks JOIN pg_stat_activity USING (pid)
	WHERE NOT granted AND locktype = 'transactionid' AND backend_type = 'taskshed worker'
		AND now() - query_start > interval '300 ms'},
	'the end of its run waits');
is($other->query('SELECT pg_sleep(0.5); COMMIT'),
	'', 'for longer than lock_timeout');
$other->quit;
await_effects($node, 'has the lock', 1);
await(
	$node,
	q{SELECT state = 'paused' AND run_count = 1 AND last_status = 'succeeded' FROM taskshed.tasks WHERE task_id = 'tries'},
	'and succeeds');
$node->safe_psql(
	'postgres', q{
SELECT taskshed.remove_all_tasks('app');
ALTER ROLE app RESET ALL;
SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type = 'taskshed worker'}
);

# Nothing of one run's session is left to the next.
$node->safe_psql(
	'postgres', q{
CREATE SEQUENCE s;
GRANT ALL ON s TO app;
GRANT TEMPORARY ON DATABASE postgres TO app;
CREATE FUNCTION litters(fail boolean) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	SET search_path = 'pg_temp', 'public';
	SET application_name = 'litter';
	PERFORM set_config('my.setting', 'litter', false);
	SET work_mem = '77kB';
	PERFORM pg_advisory_lock(77);
	CREATE TEMPORARY TABLE litter (n integer);
	PREPARE litter AS SELECT 1;
	EXECUTE 'DECLARE litter CURSOR WITH HOLD FOR SELECT 1';
	PERFORM nextval('public.s');
	IF fail THEN
		RAISE EXCEPTION 'litters and fails';
	END IF;
	PERFORM public.note('has littered');
END $$;
CREATE FUNCTION inspects(what text) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
	found text := '';
BEGIN
	found := concat_ws(' ',
		(SELECT 'search_path' WHERE current_setting('search_path') <> '"$user", public'),
		(SELECT 'application_name' WHERE current_setting('application_name') <> 'taskshed worker'),
		(SELECT 'my.setting' WHERE current_setting('my.setting', true) <> ''),
		(SELECT 'work_mem' WHERE current_setting('work_mem') = '77kB'),
		(SELECT 'lock' FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()),
		(SELECT 'table' WHERE to_regclass('pg_temp.litter') IS NOT NULL),
		(SELECT 'statement' FROM pg_prepared_statements WHERE name = 'litter'),
		(SELECT 'cursor' FROM pg_cursors WHERE name = 'litter'));
	BEGIN
		PERFORM lastval();
		found := found || ' lastval';
	EXCEPTION WHEN object_not_in_prerequisite_state THEN
	END;
	PERFORM public.note(what || ': found "' || found || '"');
END $$});
set_and_reload($node, 'taskshed.max_workers' => '1');
await(
	$node,
	'SELECT workers <= 1 FROM taskshed.status',
	'there is one worker at most');
add('litters', '{"fail": false}');
await_effects($node, 'has littered', 1);
add('inspects', '{"what": "first"}');
await_effects($node, 'first: found ""', 1);
add('litters', '{"fail": true}');
await(
	$node,
	q{SELECT last_error = 'litters and fails' FROM taskshed.tasks},
	'it has failed');
add('inspects', '{"what": "second"}');
await_effects($node, 'second: found ""', 1);
is( $node->safe_psql(
		'postgres',
		q{SELECT count(DISTINCT pid) FROM ledger WHERE what ~ 'litter|found'}
	),
	'1',
	'one worker ran them all');
set_and_reload($node, 'taskshed.max_workers' => undef);
$node->safe_psql('postgres', 'SELECT taskshed.remove_all_tasks(\'app\')');

# pg_stat_activity
$holder->query('SELECT pg_advisory_lock(1)');
add('hold', '{"what": "secret"}', q{task_id => 'watched'});
await_blocked($node, 1);
my $activity = q{
	SELECT backend_type, datname, usename, application_name, state, query FROM pg_stat_activity
	WHERE backend_type LIKE 'taskshed%' AND (backend_type <> 'taskshed worker' OR wait_event = 'advisory')
	ORDER BY 1};
my $worker =
  'taskshed worker|postgres|app|taskshed worker|active|public.hold -- task watched';
like(
	$node->safe_psql('postgres', $activity),
	qr/^taskshed launcher\|\|\w*\|taskshed launcher\|[^\n]*\ntaskshed scheduler\|postgres\|\w*\|taskshed scheduler\|[^\n]*\n\Q$worker\E$/,
	'pg_stat_activity says who is who, and what is running');
like($node->safe_psql('postgres', "SET ROLE reader; $activity"),
	qr/\Q$worker\E$/, 'to pg_read_all_stats too');
unlike(
	$node->safe_psql(
		'postgres', 'SET ROLE nobody; SELECT * FROM pg_stat_activity'),
	qr/watched|hold/,
	'but not to everybody');
unlike(
	$node->safe_psql(
		'postgres',
		'SELECT * FROM pg_stat_activity WHERE pid <> pg_backend_pid()'),
	qr/secret/,
	'and never the arguments');
$holder->query('SELECT pg_advisory_unlock(1)');
await_effects($node, 'secret', 1);
await(
	$node,
	q{SELECT count(*) = 0 FROM pg_stat_activity WHERE backend_type = 'taskshed worker' AND (state <> 'idle' OR query LIKE '%watched%' AND state = 'active')},
	'afterwards workers are idle');

$holder->quit;
$node->stop;
done_testing();
