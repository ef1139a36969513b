
# Nothing of a session carries over from one run to the next: whatever a
# callback leaves behind, in whichever way its run ends, the next task of the
# role finds a session as new, in the same process.  And however a role or a
# database has set up its sessions, tasks run and their outcome is written down.
#
# Quick: promise 7

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use TaskshedTest;
use Test::More;

my $node = taskshed_node('session', conf => 'taskshed.max_workers = 1');

sub value
{
	my ($query, $database) = @_;
	return $node->safe_psql($database || 'postgres', $query);
}

my $has_transaction_timeout =
  value(
	q{SELECT count(*) FROM pg_settings WHERE name = 'transaction_timeout'});
my $parallel_mode = value(
	q{SELECT name FROM pg_settings WHERE name IN ('force_parallel_mode', 'debug_parallel_query')}
);

value(
	q{
CREATE ROLE helper;
CREATE ROLE app LOGIN IN ROLE helper;
CREATE ROLE boss LOGIN SUPERUSER;
GRANT EXECUTE ON PROCEDURE taskshed.execute TO app;
CREATE SEQUENCE numbers;
GRANT ALL ON numbers TO PUBLIC;
CREATE TABLE seeded (first double precision);
SELECT setseed(0.5);
INSERT INTO seeded VALUES (random());
GRANT SELECT ON seeded TO PUBLIC;

-- A session, described.
CREATE FUNCTION attempt(query text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	result text;
BEGIN
	EXECUTE query INTO result;
	RETURN result;
EXCEPTION WHEN OTHERS THEN
	RETURN SQLSTATE;
END $$;
CREATE FUNCTION state() RETURNS jsonb LANGUAGE sql AS $$
	SELECT (SELECT jsonb_object_agg(name, setting) FROM pg_settings) || jsonb_build_object(
		'users', session_user || '/' || current_user,
		'placeholder', nullif(current_setting('my.secret', true), ''),
		'temporary', (SELECT count(*) FROM (
			SELECT FROM pg_class WHERE relnamespace = pg_my_temp_schema()
			UNION ALL SELECT FROM pg_proc WHERE pronamespace = pg_my_temp_schema()
			UNION ALL SELECT FROM pg_type WHERE typnamespace = pg_my_temp_schema()) AS x),
		'currval', public.attempt($q$SELECT currval('public.numbers')$q$),
		'lastval', public.attempt('SELECT lastval()'),
		'prepared', (SELECT count(*) FROM pg_prepared_statements),
		'cursors', (SELECT count(*) FROM pg_cursors WHERE name = 'leak'),
		'locks', (SELECT count(*) FROM pg_locks WHERE pid = pg_backend_pid() AND locktype = 'advisory'),
		'channels', (SELECT count(*) FROM pg_listening_channels()),
		'descriptor', public.attempt('SELECT loread(0, 1)'),
		'random', (SELECT first = random() FROM public.seeded));
$$;
CREATE TABLE found (what text, state jsonb, n serial);
GRANT ALL ON found, found_n_seq TO PUBLIC;
CREATE FUNCTION find(what text) RETURNS void LANGUAGE sql AS $$
	INSERT INTO public.found (what, state) VALUES (find.what, public.state());
$$;

-- What is different from the first that was found.
CREATE VIEW differences AS
	SELECT what, (
		SELECT string_agg(format('%s: %s', key, value), ', ') FROM (
			SELECT * FROM jsonb_each(state) EXCEPT
			SELECT * FROM jsonb_each((SELECT state FROM found ORDER BY n LIMIT 1))) AS d) AS differences
	FROM found;

-- The ways in which a run ends.
CREATE FUNCTION leave(command text, fail boolean DEFAULT false) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	EXECUTE command;
	IF fail THEN
		RAISE 'failed';
	END IF;
END $$;
CREATE PROCEDURE leave_committed(command text, how text) LANGUAGE plpgsql AS $$
BEGIN
	EXECUTE command;
	COMMIT;
	IF how = 'roll back' THEN
		PERFORM FROM pg_class;
		ROLLBACK;
	ELSIF how = 'fail' THEN
		RAISE 'failed';
	ELSIF how = 'wait' THEN
		PERFORM pg_sleep(600);
	END IF;
END $$;
});

# ------------------------------------------------------------------------
# What a run leaves behind.  Kinds: local, it ends with the transaction anyway;
# unseen, it takes something away from a session that has nothing; alone, no
# function can do it; refused, there is no such thing in a worker.

my @leaves = (
	[ 'a setting', q{SET work_mem = '77MB'} ],
	[
		'a setting by a function',
		q{SELECT set_config('work_mem', '77MB', false)}
	],
	[ 'a local setting',      q{SET LOCAL work_mem = '77MB'}, 'local' ],
	[ 'a search_path',        q{SET search_path = pg_temp, public} ],
	[ 'a secret',             q{SET my.secret = 'xyzzy'} ],
	[ 'a role',               q{SET ROLE helper} ],
	[ 'an application_name',  q{SET application_name = 'psql'} ],
	[ 'a lock_timeout',       q{SET lock_timeout = '1ms'} ],
	[ 'a synchronous_commit', q{SET synchronous_commit = local} ],
	[ 'row_security',         q{SET row_security = off} ],
	[
		'read-only sessions',
		q{SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY}
	],
	[
		'serializable sessions',
		q{SET SESSION CHARACTERISTICS AS TRANSACTION ISOLATION LEVEL SERIALIZABLE, DEFERRABLE}
	],
	[ 'a temporary table', q{CREATE TEMP TABLE leak (i integer)} ],
	[
		'one that is emptied',
		q{CREATE TEMP TABLE leak (i integer) ON COMMIT DELETE ROWS}
	],
	[
		'one that is dropped',
		q{CREATE TEMP TABLE leak (i) ON COMMIT DROP AS SELECT 1}, 'local'
	],
	[ 'a temporary view',     q{CREATE TEMP VIEW leak AS SELECT 1 AS i} ],
	[ 'a temporary sequence', q{CREATE TEMP SEQUENCE leak} ],
	[
		'a temporary function',
		q{CREATE FUNCTION pg_temp.leak() RETURNS integer LANGUAGE sql AS 'SELECT 1'}
	],
	[ 'a temporary type',       q{CREATE TYPE pg_temp.leak AS (i integer)} ],
	[ 'a temporary domain',     q{CREATE DOMAIN pg_temp.leak AS integer} ],
	[ 'a number of a sequence', q{SELECT nextval('public.numbers')} ],
	[ 'a prepared statement',   q{PREPARE leak AS SELECT 1} ],
	[
		'a held cursor',
		q{DECLARE leak CURSOR WITH HOLD FOR SELECT generate_series(1, 10)}
	],
	[
		'advisory locks',
		q{SELECT pg_advisory_lock(77), pg_advisory_lock_shared(78)}
	],
	[ 'a local advisory lock', q{SELECT pg_advisory_xact_lock(77)}, 'local' ],
	[ 'a seed', q{SELECT setseed(0.5)} ],
	[
		'an open large object',
		q{SELECT lo_open(lo_create(0), 393216)},
		'local'
	],
	[ 'a channel',              q{LISTEN leak},    'refused' ],
	[ 'no settings',            q{RESET ALL},      'unseen' ],
	[ 'no prepared statements', q{DEALLOCATE ALL}, 'unseen' ],
	[ 'nothing',                q{DISCARD ALL},    'alone' ]);
push @leaves, [ 'a transaction_timeout', q{SET transaction_timeout = '1h'} ]
  if $has_transaction_timeout;

my @leaves_of_superuser = (
	[ 'a session user', q{SET SESSION AUTHORIZATION app} ],
	[
		'a session user and role',
		q{DO 'BEGIN SET SESSION AUTHORIZATION app; SET ROLE helper; END'}
	],
	[ 'a replication role',  q{SET session_replication_role = replica} ],
	[ 'a level of messages', q{SET log_min_messages = panic} ],
	[ 'a library',           q{LOAD 'plpgsql'}, 'unseen' ]);

# Ways: the callback, further kwargs, and the run's status.
my @ways = (
	[ 'a function leaves',           'leave', '', 'succeeded' ],
	[ 'a function fails and leaves', 'leave', q{, 'fail', true}, 'failed' ],
	[ 'a command leaves',            'taskshed.execute', '', 'succeeded' ],
	[
		'a procedure commits', 'leave_committed',
		q{, 'how', 'end'},     'succeeded'
	],
	[
		'a procedure rolls back, after', 'leave_committed',
		q{, 'how', 'roll back'},         'succeeded'
	],
	[
		'a procedure fails after', 'leave_committed',
		q{, 'how', 'fail'},        'failed'
	],
	[
		'a procedure is cancelled with', 'leave_committed',
		q{, 'how', 'wait'},              'cancelled'
	],
	[
		'a procedure takes too long with', 'leave_committed',
		q{, 'how', 'wait'},                'timeout'
	]);

# A session that does this is not as new; or else all that follows would say
# nothing.
foreach my $leave (@leaves, @leaves_of_superuser)
{
	my ($what, $command, $kind) = (@$leave, '');
	my $session = session($node);

	next if $kind =~ /^(unseen|alone)$/;
	$session->query('SET SESSION AUTHORIZATION app')
	  if grep { $_ == $leave } @leaves;
	$session->query('BEGIN') if $kind eq 'local';
	$session->query('SELECT state() AS s \gset');
	$session->query($command);
	like(
		$session->query(
			q{SELECT string_agg(key, ' ') FROM (SELECT * FROM jsonb_each(public.state()) EXCEPT SELECT * FROM jsonb_each(:'s')) AS x}
		),
		qr/./,
		"$what: would be seen");
	$session->quit;
}

# All are due, one after the other, each before one that looks.
sub leaves_nothing
{
	my ($role, @leaves) = @_;
	my $n = 0;
	my %want;
	my $sql =
	  q{SELECT taskshed.add_task('find', '1999-01-01', '{"what": "first"}', task_id => 'first');};

	value('TRUNCATE found RESTART IDENTITY');
	foreach my $leave (@leaves)
	{
		my ($what, $command, $kind) = (@$leave, '');

		foreach my $way (@ways)
		{
			my ($how, $callback, $kwargs, $status) = @$way;
			my $name    = "$how $what";
			my $timeout = $status eq 'timeout' ? q{'50 ms'} : 'NULL';

			next if $kind eq 'alone' && $callback ne 'taskshed.execute';
			$want{$name} = $kind eq 'refused' ? 'failed' : $status;
			$sql .= qq{
				SELECT taskshed.add_task('$callback', '2000-01-01'::timestamptz + $n * interval '1 s',
					jsonb_build_object('command', \$text\$$command\$text\$::text$kwargs),
					task_id => '$name', timeout => $timeout);
				SELECT taskshed.add_task('find', '2000-01-01'::timestamptz + ($n + 0.5) * interval '1 s',
					'{"what": "after $name"}', task_id => 'after $name');};
			$n++;
		}
	}
	value("SET ROLE $role; BEGIN; $sql COMMIT");
	await(
		$node, q{
		WITH cancelled AS MATERIALIZED (
			SELECT taskshed.cancel_task(task_id, owner)
			FROM taskshed.tasks JOIN pg_stat_activity ON pid = worker_pid
			WHERE task_id LIKE '%is cancelled%' AND wait_event = 'PgSleep')
		SELECT (SELECT count(*) FROM cancelled) = 0 AND
			NOT EXISTS (SELECT FROM taskshed.tasks WHERE state <> 'failed')},
		"the tasks of $role have run");

	is( value(
			"SELECT count(DISTINCT worker_pid) FROM taskshed.runs WHERE owner = '$role'"
		),
		'1',
		"$role: all in one process");
	my %status = map { split /\|/ } split /\n/,
	  value(
		"SELECT task_id, string_agg(status, ' ') FROM taskshed.runs WHERE owner = '$role' GROUP BY task_id"
	  );
	my %differences = map { split /\|/, $_, 2 } split /\n/,
	  value('SELECT * FROM differences');
	foreach my $name (sort keys %want)
	{
		is( join(', ',
				$status{$name}, $status{"after $name"},
				$differences{"after $name"}),
			"$want{$name}, succeeded, ",
			"$role: $name");
	}
	return;
}

leaves_nothing('app',  @leaves);
leaves_nothing('boss', @leaves_of_superuser);

# A run that has lost a conflict is tried again in a session as new.
value(
	q{
CREATE SEQUENCE tries;
GRANT ALL ON tries TO PUBLIC;
CREATE FUNCTION conflicts() RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	PREPARE leak AS SELECT 1;
	PERFORM pg_advisory_lock(77);
	IF nextval('public.tries') < 3 THEN
		RAISE SQLSTATE '40001';
	END IF;
	PERFORM public.note((SELECT count(*) || ' lock' FROM pg_locks
		WHERE pid = pg_backend_pid() AND locktype = 'advisory'));
	PERFORM pg_advisory_unlock(77);
	IF pg_advisory_unlock(77) THEN
		PERFORM public.note('locked more than once');
	END IF;
END $$;
SET ROLE app;
SELECT taskshed.add_task('conflicts', task_id => 'conflicts')});
await(
	$node,
	q{SELECT NOT EXISTS (SELECT FROM taskshed.tasks WHERE state <> 'failed')},
	'it is over');
is(runs_of($node, 'conflicts'), 'succeeded 1', 'a run that is tried again');
is(value(q{SELECT string_agg(what, ', ') FROM ledger}),
	'1 lock', 'has nothing of its first try');

# ------------------------------------------------------------------------
# The role's lock_timeout is for what its callbacks wait for.  Our own reading
# of the task is not subject to it.

value(
	q{
CREATE ROLE hasty LOGIN;
ALTER ROLE hasty SET lock_timeout = '1ms';
CREATE TABLE wanted ();
GRANT ALL ON wanted TO PUBLIC;
CREATE FUNCTION harmless() RETURNS text LANGUAGE sql AS 'SELECT current_user::text';
CREATE FUNCTION wants() RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	LOCK TABLE public.wanted IN ACCESS SHARE MODE;
END $$;
CREATE PROCEDURE wants_committed() LANGUAGE plpgsql AS $$
BEGIN
	COMMIT;
	LOCK TABLE public.wanted IN ACCESS SHARE MODE;
END $$;
CREATE PROCEDURE wants_at_once() LANGUAGE plpgsql AS $$
BEGIN
	LOCK TABLE public.wanted IN ACCESS SHARE MODE;
END $$;
SET ROLE hasty;
SELECT taskshed.add_task('harmless', every => '10 ms', task_id => 'ticks')});
await($node,
	q{SELECT run_count > 3 FROM taskshed.tasks WHERE task_id = 'ticks'},
	'it ticks');
my $locker = session($node);
$locker->query('BEGIN; LOCK TABLE _taskshed.task');
# (What else await would ask, if this is in vain, would wait for the lock.)
ok( $node->poll_query_until(
		'postgres',
		q{SELECT count(*) = 1 FROM pg_locks JOIN pg_stat_activity USING (pid)
		WHERE NOT granted AND backend_type = 'taskshed worker' AND waitstart < now() - interval '20 ms'}
	),
	'its worker waits for the table');
my $ticks = $locker->query(
	q{SELECT run_count FROM taskshed.tasks WHERE task_id = 'ticks'});
$locker->query('COMMIT; BEGIN; LOCK TABLE public.wanted');
await(
	$node,
	"SELECT run_count > $ticks + 3 FROM taskshed.tasks WHERE task_id = 'ticks'",
	'it goes on');
is( value(
		q{SELECT count(DISTINCT worker_pid), count(*) FILTER (WHERE status <> 'succeeded')
		FROM taskshed.runs WHERE task_id = 'ticks'}),
	'1|0',
	'in the same worker');
foreach my $callback ('wants', 'wants_at_once', 'wants_committed')
{
	value(
		"SET ROLE hasty; SELECT taskshed.add_task('$callback', task_id => '$callback')"
	);
	await_state($node, $callback, 'failed');
	is( value(
			"SELECT last_sqlstate FROM taskshed.tasks WHERE task_id = '$callback'"
		),
		'55P03',
		"$callback: waits for no longer than its role says");
}
$locker->quit;
value(q{SELECT taskshed.remove_all_tasks(owner => 'hasty')});

# ------------------------------------------------------------------------
# Sessions that are hard to work in

my %settings = (
	read_only       => [q{default_transaction_read_only = on}],
	repeatable_read => [q{default_transaction_isolation = 'repeatable read'}],
	patient         => [
		q{default_transaction_isolation = serializable},
		q{default_transaction_read_only = on},
		q{default_transaction_deferrable = on}
	],
	impatient => [
		q{lock_timeout = '1ms'},
		q{statement_timeout = '1ms'},
		q{idle_in_transaction_session_timeout = '1ms'},
		q{idle_session_timeout = '1ms'},
		q{client_connection_check_interval = '1ms'}
	],
	touchy => [q{exit_on_error = on}],
	lost   => [q{search_path = ''}],
	astray => [q{search_path = pg_temp, no_such_schema, public}],
	abroad => [
		q{TimeZone = 'Asia/Kathmandu'},
		q{DateStyle = 'German'},
		q{IntervalStyle = 'sql_standard'},
		q{timezone_abbreviations = 'India'},
		q{client_encoding = 'LATIN1'},
		q{bytea_output = escape},
		q{extra_float_digits = -15},
		q{xmloption = document}
	],
	quoted => [
		q{quote_all_identifiers = on},
		q{backslash_quote = off},
		q{transform_null_equals = on},
		q{array_nulls = off}
	],
	planned => [
		q{plan_cache_mode = force_generic_plan},
		q{jit_above_cost = 0},
		q{enable_indexscan = off},
		q{enable_seqscan = off},
		q{enable_bitmapscan = off},
		"$parallel_mode = on"
	],
	elsewhere => [
		q{default_tablespace = 'no_such_tablespace'},
		q{temp_tablespaces = 'no_such_tablespace'}
	],
	somebody => [ q{role = helper}, q{application_name = 'psql'} ],
	silent   => [
		q{client_min_messages = error},
		q{row_security = off},
		q{check_function_bodies = off},
		q{synchronous_commit = remote_apply},
		q{stats_fetch_consistency = snapshot},
		q{work_mem = '64kB'}
	],
	superuser => [
		q{session_replication_role = replica},
		q{temp_file_limit = 0},
		q{max_stack_depth = '100kB'},
		q{log_min_messages = fatal},
		q{zero_damaged_pages = on},
		q{ignore_checksum_failure = on},
		q{track_activities = off},
		q{allow_system_table_mods = on},
		q{commit_delay = 10},
		q{deadlock_timeout = '1ms'},
		q{log_statement_stats = on}
	]);
push @{ $settings{quoted} }, q{standard_conforming_strings = off}
  if value(q{SELECT current_setting('server_version_num')::integer < 190000})
  eq 't';
push @{ $settings{impatient} }, q{transaction_timeout = '1ms'}
  if $has_transaction_timeout;

my $callbacks = q{
CREATE OR REPLACE FUNCTION harmless() RETURNS text LANGUAGE sql AS 'SELECT current_user::text';
CREATE FUNCTION rests() RETURNS void LANGUAGE sql AS 'SELECT pg_sleep(0.1)';
CREATE FUNCTION fails() RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	RAISE 'failed';
END $$;

-- Has something to be put back, also where transactions are read-only.
CREATE PROCEDURE commits(fail boolean) LANGUAGE plpgsql AS $$
BEGIN
	COMMIT;
	SET TRANSACTION READ WRITE;
	CREATE TEMP TABLE mine (i integer);
	IF fail THEN
		RAISE 'failed';
	END IF;
END $$;
};
my $schedule = q{
SELECT taskshed.add_task('public.harmless', task_id => 'once');
SELECT taskshed.add_task('public.harmless', every => '10 ms', max_runs => 3, task_id => 'recurs');
SELECT taskshed.add_task('public.rests', task_id => 'rests');
SELECT taskshed.add_task('public.fails', task_id => 'fails', max_attempts => 2, retry_delay => '10 ms');
SELECT taskshed.add_task('public.commits', kwargs => '{"fail": false}', task_id => 'commits');
SELECT taskshed.add_task('public.commits', kwargs => '{"fail": true}', task_id => 'commits, fails');
};

# One-off tasks, recurring ones and failures of a role, and what is written down.
sub works
{
	my ($what, $database, $role) = @_;

	value("SET ROLE $role; BEGIN; $schedule COMMIT", $database);
	await(
		$node, qq{
		SELECT NOT EXISTS (SELECT FROM taskshed.tasks WHERE owner = '$role' AND state <> 'failed')},
		"$what: the tasks have run", $database);
	is( value(
			qq{SELECT task_id, string_agg(concat_ws(' ', status, sqlstate, result), ', ' ORDER BY finished_at, run_id)
			FROM taskshed.runs WHERE owner = '$role' GROUP BY task_id ORDER BY task_id COLLATE "C"},
			$database),
		qq{commits|succeeded
commits, fails|failed P0001
fails|failed P0001, failed P0001
once|succeeded $role
recurs|succeeded $role, succeeded $role, succeeded $role
rests|succeeded},
		"$what: the record of their runs");
	is( value(
			qq{SELECT task_id, last_status, last_sqlstate, attempt, run_count
			FROM taskshed.tasks WHERE owner = '$role' ORDER BY task_id COLLATE "C"},
			$database),
		qq{commits, fails|failed|P0001|1|1
fails|failed|P0001|2|1},
		"$what: what is left of the tasks");
	return;
}

value($callbacks);
set_and_reload(
	$node,
	'taskshed.max_workers'         => 4,
	'taskshed.worker_idle_timeout' => '200ms');

# (Who is serializable, read-only and deferrable waits for this one's end.)
my $serializable = session($node);
$serializable->query(
	q{BEGIN ISOLATION LEVEL SERIALIZABLE; INSERT INTO ledger (what) VALUES ('open')}
);
foreach my $role (sort keys %settings)
{
	value("CREATE ROLE $role LOGIN "
		  . ($role eq 'superuser' ? 'SUPERUSER' : 'IN ROLE helper'));
	value("ALTER ROLE $role SET $_") foreach @{ $settings{$role} };
	works("as $role", 'postgres', $role);

	# it does not take a place from others, either
	await(
		$node, qq{
		SELECT count(*) = 0 FROM pg_stat_activity
		WHERE backend_type = 'taskshed worker' AND usename = '$role'},
		"as $role: its workers leave when they are to");
}

# All of it at once, of a database: its scheduler starts with that as well.
value('CREATE ROLE visitor LOGIN IN ROLE helper');
value('CREATE DATABASE hostile');
taskshed_database($node, 'hostile');
value($callbacks, 'hostile');
foreach my $setting (map { @{ $settings{$_} } } sort keys %settings)
{
	value("ALTER DATABASE hostile SET $setting");
}
await(
	$node,
	q{SELECT scheduler_pid IS NOT NULL FROM taskshed.status WHERE database = 'hostile'},
	'the database has a scheduler');
my $pid = value(
	q{SELECT scheduler_pid FROM taskshed.status WHERE database = 'hostile'});
value("SELECT pg_terminate_backend($pid)");
await(
	$node,
	qq{SELECT scheduler_pid <> $pid FROM taskshed.status WHERE database = 'hostile'},
	'it has another');
{
	# as it is for us
	local $ENV{PGOPTIONS} = join ' ',
	  map { "-c $_" } (
		'default_transaction_read_only=off',
		'default_transaction_deferrable=off',
		'default_transaction_isolation=read\ committed',
		'statement_timeout=0',
		'idle_in_transaction_session_timeout=0',
		'idle_session_timeout=0',
		'exit_on_error=off',
		'client_min_messages=error',
		'search_path=public',
		'role=none',
		'session_replication_role=origin');

	$ENV{PGOPTIONS} .= ' -c transaction_timeout=0'
	  if $has_transaction_timeout;
	works('in a hostile database', 'hostile', 'visitor');
}
$serializable->quit;

$node->stop;
done_testing();
