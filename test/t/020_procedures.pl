
# Procedures as callbacks: they may end transactions, be stopped between two of
# them, and leave a session behind that the next run must not find.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use TaskshedTest;
use Test::More;

my $node = taskshed_node('procedures');

$node->safe_psql(
	'postgres', q{
CREATE ROLE app LOGIN;
CREATE ROLE helper;
GRANT helper TO app;
CREATE TABLE loaded (id integer PRIMARY KEY, batch integer NOT NULL);
GRANT ALL ON loaded TO PUBLIC;

-- Loads 10,000 rows, 1,000 in a transaction; goes on where it was stopped.
-- It waits for lock 1 with half a batch in its hands.
CREATE PROCEDURE load(wait_in integer) LANGUAGE plpgsql AS $$
DECLARE
	first integer;
BEGIN
	FOR batch IN 1 + (SELECT count(*) FROM loaded) / 1000 .. 10 LOOP
		first := (batch - 1) * 1000 + 1;
		INSERT INTO loaded SELECT i, batch FROM generate_series(first, first + 499) i;
		IF batch = wait_in THEN
			PERFORM pg_advisory_xact_lock_shared(1);
		END IF;
		INSERT INTO loaded SELECT i, batch FROM generate_series(first + 500, first + 999) i;
		COMMIT;
	END LOOP;
	PERFORM note('loaded');
END $$;
});

my $app = session($node);
$app->query('SET SESSION AUTHORIZATION app');

# Adds a task and waits until it is gone, or has failed: then returns its error
sub run_task
{
	my ($callback, $kwargs, $session) = @_;

	$kwargs ||= '{}';
	is( ($session || $app)->query(
			qq{SELECT taskshed.add_task(\$taskshed\$$callback\$taskshed\$, kwargs => \$taskshed\$$kwargs\$taskshed\$, task_id => 'task')}
		),
		'task',
		"$callback $kwargs is scheduled");
	await(
		$node, q{
		SELECT count(*) FILTER (WHERE state <> 'failed') = 0 FROM taskshed.tasks WHERE task_id = 'task'},
		"$callback has run");
	my $error = $node->safe_psql('postgres',
		q{SELECT last_sqlstate || ' ' || last_error FROM taskshed.tasks WHERE task_id = 'task'}
	);
	$node->safe_psql('postgres',
		q{SELECT taskshed.remove_task('task', owner => owner) FROM taskshed.tasks WHERE task_id = 'task'}
	);
	return $error;
}

sub ledger
{
	my $ledger = $node->safe_psql('postgres',
		q{SELECT string_agg(what, ', ' ORDER BY started) FROM ledger});

	$node->safe_psql('postgres', 'TRUNCATE ledger');
	return $ledger;
}

# ------------------------------------------------------------------------
# Stopped in the middle

my $holder = session($node);
$holder->query('SELECT pg_advisory_lock(1)');
$app->query(
	q{SELECT taskshed.add_task('load', kwargs => '{"wait_in": 6}', task_id => 'load')}
);
await_blocked($node, 1);
is($node->safe_psql('postgres', 'SELECT count(*), max(batch) FROM loaded'),
	'5000|5', 'five batches are committed, while the sixth is at work');
is( $node->safe_psql(
		'postgres',
		q{SELECT state, run_count FROM taskshed.tasks WHERE task_id = 'load'}
	),
	'running|0',
	'the task is running');
my $pid =
  $node->safe_psql('postgres', q{SELECT worker_pid FROM taskshed.tasks});
$node->safe_psql('postgres', "SELECT pg_terminate_backend($pid)");
await(
	$node,
	"SELECT count(*) = 0 FROM pg_stat_activity WHERE pid = $pid",
	'the worker is gone');
is($node->safe_psql('postgres', 'SELECT count(*), max(batch) FROM loaded'),
	'5000|5', 'the committed batches are there, and nothing of the sixth');

# What was cut off is done again, and by a procedure that looks where it was,
# only the rest of it.
await_blocked($node, 1);
is( $node->safe_psql(
		'postgres',
		qq{SELECT worker_pid <> $pid, run_count, last_status IS NULL FROM taskshed.tasks}
	),
	't|0|t',
	'another worker is at it, and the run that was cut off is no failure');
$holder->query('SELECT pg_advisory_unlock(1)');
await_no_task($node, 'load');
is( $node->safe_psql(
		'postgres',
		'SELECT count(*), count(DISTINCT batch), min(id), max(id) FROM loaded'
	),
	'10000|10|1|10000',
	'all is loaded');
is(ledger(), 'loaded', 'what comes after the last COMMIT is done once');

# Several times, wherever it happens to be
$node->safe_psql(
	'postgres', q{
TRUNCATE loaded;
CREATE PROCEDURE load_slowly() LANGUAGE plpgsql AS $$
BEGIN
	FOR batch IN 1 + (SELECT count(*) FROM loaded) / 1000 .. 10 LOOP
		FOR part IN 0 .. 9 LOOP
			INSERT INTO loaded SELECT (batch - 1) * 1000 + part * 100 + i, batch FROM generate_series(1, 100) i;
			PERFORM pg_sleep(0.005);
		END LOOP;
		COMMIT;
	END LOOP;
END $$;
});
$app->query(q{SELECT taskshed.add_task('load_slowly', task_id => 'slowly')});
foreach my $batches (1, 3, 5)
{
	await(
		$node,
		"SELECT count(*) >= $batches * 1000 FROM loaded",
		"$batches batches are there");
	$node->safe_psql('postgres',
		q{SELECT pg_terminate_backend(worker_pid) FROM taskshed.tasks WHERE worker_pid IS NOT NULL}
	);
	is($node->safe_psql('postgres', 'SELECT count(*) % 1000 FROM loaded'),
		'0', 'only whole batches are');
}
await_no_task($node, 'slowly');
is( $node->safe_psql(
		'postgres',
		'SELECT count(*), count(DISTINCT batch), max(id) FROM loaded'),
	'10000|10|10000',
	'all is loaded');

# One that recurs
$node->safe_psql(
	'postgres', q{
CREATE PROCEDURE tick() LANGUAGE plpgsql AS $$
BEGIN
	PERFORM note('one');
	COMMIT;
	PERFORM note('two');
	COMMIT;
END $$;
});
$app->query(
	q{SELECT taskshed.add_task('tick', every => '20 ms', task_id => 'tick')});
await($node,
	q{SELECT run_count >= 5 FROM taskshed.tasks WHERE task_id = 'tick'},
	'it recurs');
$app->query(q{SELECT taskshed.pause_task('tick')});
await($node,
	q{SELECT state = 'paused' FROM taskshed.tasks WHERE task_id = 'tick'},
	'it is paused');
is( $node->safe_psql(
		'postgres', q{
		SELECT count(*) FILTER (WHERE what = 'one') = run_count, count(*) FILTER (WHERE what = 'two') = run_count, last_status
		FROM ledger, taskshed.tasks GROUP BY run_count, last_status}),
	't|t|succeeded',
	'each run is counted once');
$app->query(q{SELECT taskshed.remove_task('tick')});
ledger();

# ------------------------------------------------------------------------
# COMMIT and ROLLBACK

$node->safe_psql(
	'postgres', q{
CREATE TABLE once (what text PRIMARY KEY);
GRANT ALL ON once TO PUBLIC;
CREATE PROCEDURE plain(OUT n integer, INOUT what text DEFAULT 'plain') LANGUAGE plpgsql AS $$
BEGIN
	PERFORM note(what);
	n := 1;
END $$;
CREATE PROCEDURE ends_often() LANGUAGE plpgsql AS $$
BEGIN
	PERFORM note('rolled back');
	ROLLBACK;
	PERFORM note('committed');
	COMMIT;
	PERFORM note('rolled back');
	ROLLBACK;
	COMMIT;
	COMMIT;
	ROLLBACK;
	PERFORM note('left to the end');
END $$;
CREATE PROCEDURE rolled_back_last() LANGUAGE plpgsql AS $$
BEGIN
	PERFORM note('rolled back');
	ROLLBACK;
END $$;
CREATE PROCEDURE chained() LANGUAGE plpgsql AS $$
BEGIN
	ROLLBACK;
	SET TRANSACTION ISOLATION LEVEL REPEATABLE READ;
	PERFORM note(current_setting('transaction_isolation'));
	COMMIT AND CHAIN;
	PERFORM note(current_setting('transaction_isolation'));
	COMMIT;
	SET TRANSACTION READ ONLY;
	PERFORM 1;
END $$;
CREATE PROCEDURE caught() LANGUAGE plpgsql AS $$
BEGIN
	INSERT INTO once VALUES ('x');
	COMMIT;
	FOR i IN 1 .. 3 LOOP
		BEGIN
			PERFORM note('undone');
			INSERT INTO once VALUES ('x');
		EXCEPTION WHEN unique_violation THEN
			PERFORM note('caught ' || i);
		END;
		COMMIT;
	END LOOP;
	BEGIN
		COMMIT;
	EXCEPTION WHEN invalid_transaction_termination THEN
		PERFORM note('no commit within');
	END;
END $$;
CREATE PROCEDURE fails_after() LANGUAGE plpgsql AS $$
BEGIN
	PERFORM note('committed');
	COMMIT;
	PERFORM note('lost');
	RAISE EXCEPTION 'it fails' USING ERRCODE = 'TS001';
END $$;
CREATE PROCEDURE fails_after_rollback() LANGUAGE plpgsql AS $$
BEGIN
	PERFORM note('lost');
	ROLLBACK;
	PERFORM 1 / 0;
END $$;
CREATE PROCEDURE outer_one(n integer) LANGUAGE plpgsql AS $$
BEGIN
	FOR i IN 1 .. n LOOP
		CALL ends_often();
	END LOOP;
	PERFORM note((taskshed.current_task()).task_id);
END $$;
CREATE PROCEDURE over_a_cursor() LANGUAGE plpgsql AS $$
DECLARE
	r record;
BEGIN
	FOR r IN SELECT i FROM generate_series(1, 5) i LOOP
		PERFORM note('row ' || r.i);
		COMMIT;
	END LOOP;
END $$;
CREATE TABLE parent (id integer PRIMARY KEY);
CREATE TABLE child (id integer REFERENCES parent DEFERRABLE INITIALLY DEFERRED);
GRANT ALL ON parent, child TO PUBLIC;
CREATE PROCEDURE fails_at_commit(before integer) LANGUAGE plpgsql AS $$
BEGIN
	FOR i IN 1 .. before LOOP
		PERFORM note('committed');
		COMMIT;
	END LOOP;
	PERFORM note('lost');
	INSERT INTO child VALUES (1);
END $$;
CREATE PROCEDURE with_settings() LANGUAGE plpgsql SET work_mem = '1MB' AS $$
BEGIN
	COMMIT;
END $$;
CREATE PROCEDURE definer() LANGUAGE plpgsql SECURITY DEFINER AS $$
BEGIN
	PERFORM note('as ' || current_user);
	BEGIN
		COMMIT;
	EXCEPTION WHEN invalid_transaction_termination THEN
		PERFORM note('no commit');
	END;
END $$;
});
is(run_task('plain'),      '',      'INOUT and OUT arguments');
is(ledger(),               'plain', 'a procedure that ends no transaction');
is(run_task('ends_often'), '',      'COMMIT and ROLLBACK');
is(ledger(), 'committed, left to the end', 'what was committed stays');
is(run_task('rolled_back_last'), '',       'ROLLBACK last');
is(ledger(),                     '',       'nothing is left');
is(run_task('chained'),          '',       'transactions of another kind');
is(ledger(),           'repeatable read, repeatable read', 'they were');
is(run_task('caught'), '', 'COMMIT after an error that was caught');
is(ledger(), 'caught 1, caught 2, caught 3, no commit within', 'it was');
is(run_task('fails_after'), 'TS001 it fails', 'an error after COMMIT');
is(ledger(),                'committed',      'what was committed stays');
is( run_task('fails_after_rollback'),
	'22012 division by zero',
	'an error after ROLLBACK');
is(ledger(),                          '', 'nothing is left');
is(run_task('outer_one', '{"n": 2}'), '', 'procedures that call procedures');
is( ledger(),
	'committed, committed, left to the end, task',
	'one can roll back what the other has left, and the last knows its task');
is(run_task('over_a_cursor'), '', 'COMMIT within a loop over a query');
is(ledger(), 'row 1, row 2, row 3, row 4, row 5', 'all rows');
like(run_task('fails_at_commit', qq({"before": $_})),
	qr/^23503 /, 'an error of a deferred constraint')
  for 0, 2;
is(ledger(), 'committed, committed', 'what was committed before stays');
like(run_task('with_settings'),
	qr/^2D000 /, 'no COMMIT within a procedure with SET');
is(run_task('definer'), '', 'SECURITY DEFINER');
like(ledger(), qr/^as (?!app)\w+, no commit$/, 'which cannot commit');

# ------------------------------------------------------------------------
# What procedures and functions leave behind in their session

$node->safe_psql(
	'postgres', q{
CREATE SEQUENCE numbers;
GRANT ALL ON numbers TO PUBLIC;
CREATE TABLE states (what text, pid integer, state text);
GRANT ALL ON states TO PUBLIC;
-- As a SQL function with all names qualified it is the same whatever the search_path.
CREATE FUNCTION state() RETURNS text LANGUAGE sql AS $$
	SELECT pg_catalog.concat_ws(', ', session_user, current_user, current_setting('role'), current_setting('session_authorization'),
		current_setting('is_superuser'),
		current_setting('search_path'), current_setting('work_mem'), current_setting('timezone'), current_setting('datestyle'),
		current_setting('default_transaction_read_only'), current_setting('default_transaction_isolation'),
		current_setting('transaction_read_only'), current_setting('transaction_isolation'),
		current_setting('statement_timeout'), current_setting('lock_timeout'), current_setting('synchronous_commit'),
		current_setting('application_name'), current_setting('client_min_messages'), current_setting('row_security'),
		current_setting('session_replication_role'), current_setting('check_function_bodies'), current_setting('client_encoding'),
		coalesce(nullif(current_setting('app.tenant', true), ''), '-'),
		(SELECT count(*) FROM pg_catalog.pg_prepared_statements), (SELECT count(*) FROM pg_catalog.pg_cursors),
		(SELECT count(*) FROM pg_catalog.pg_locks WHERE pid = pg_catalog.pg_backend_pid() AND locktype = 'advisory'),
		coalesce(pg_catalog.to_regclass('pg_temp.leak')::text, '-'),
		(SELECT count(*) FROM pg_catalog.pg_listening_channels()))
$$;
CREATE FUNCTION record_state(what text) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
	last bigint;
BEGIN
	BEGIN
		last := lastval();
	EXCEPTION WHEN object_not_in_prerequisite_state THEN
	END;
	INSERT INTO public.states VALUES (what, pg_backend_pid(), public.state() || ', ' || coalesce(last::text, '-'));
END $$;
CREATE PROCEDURE pollute(commands text[], commits boolean, fails boolean DEFAULT false) LANGUAGE plpgsql AS $$
DECLARE
	command text;
BEGIN
	INSERT INTO public.states VALUES ('polluter', pg_backend_pid());
	FOREACH command IN ARRAY commands LOOP
		EXECUTE command;
		IF commits THEN
			COMMIT;
		END IF;
	END LOOP;
	IF fails THEN
		PERFORM 1 / 0;
	END IF;
END $$;
CREATE FUNCTION pollute_without_commit(commands text[], fails boolean DEFAULT false) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	CALL public.pollute(commands, false, fails);
END $$;
});

# (As a literal in JSON and SQL: no quotes but these.)
my @settings = (
	'SET ROLE helper',
	"SET search_path = pg_temp, nowhere",
	"SET work_mem = '77MB'",
	"SET timezone = 'Asia/Tokyo'",
	"SET datestyle = 'German'",
	'SET statement_timeout = 12345',
	'SET lock_timeout = 1',
	'SET synchronous_commit = on',
	"SET application_name = 'leak'",
	'SET client_min_messages = debug5',
	'SET row_security = off',
	"SET app.tenant = '42'",
	'SET check_function_bodies = off',
	"SELECT set_config('app.other', '1', false)");
my %pollution = (
	'settings'     => \@settings,
	'read only'    => ['SET default_transaction_read_only = on'],
	'serializable' => [
		"SET default_transaction_isolation = 'serializable'",
		'SET default_transaction_deferrable = on'
	],
	'read only and serializable' => [
		"SET default_transaction_isolation = 'serializable'",
		'SET default_transaction_read_only = on'
	],
	'role'       => ['SET ROLE helper'],
	'statements' => ['PREPARE leak AS SELECT 1'],
	'cursor'     => ['DECLARE leak CURSOR WITH HOLD FOR SELECT 1'],
	'locks'      =>
	  [ 'SELECT pg_advisory_lock(77)', 'SELECT pg_advisory_lock_shared(78)' ],
	'temporary' => [
		'CREATE TEMP TABLE leak (i integer)',
		'INSERT INTO leak VALUES (1)',
		'CREATE TEMP SEQUENCE leak2'
	],
	'sequence' => ["SELECT nextval('public.numbers')"]);

foreach my $who ('app', 'boss')
{
	my $session = session($node);

	$node->safe_psql('postgres', 'CREATE ROLE boss LOGIN SUPERUSER')
	  if $who eq 'boss';
	$session->query("SET SESSION AUTHORIZATION $who");
	if ($who eq 'boss')
	{
		$pollution{authorization} = ['SET SESSION AUTHORIZATION app'];
		$pollution{'authorization and role'} =
		  [ 'SET SESSION AUTHORIZATION app', 'SET ROLE helper' ];
		$pollution{replica} = [
			'SET session_replication_role = replica',
			'SET SESSION AUTHORIZATION app'
		];
	}
	run_task('record_state', '{"what": "before"}', $session);
	my $before = $node->safe_psql('postgres',
		q{SELECT state FROM states WHERE what = 'before'});
	like($before, qr/^$who, $who, none, $who, /, "$who: the state before");
	foreach my $what (sort keys %pollution)
	{
		my $commands = join(', ', map { "\"$_\"" } @{ $pollution{$what} });

		foreach my $how (
			[ 'committed', 'pollute', '"commits": true', qr/^$/ ],
			[
				'committed, then failed',
				'pollute',
				'"commits": true, "fails": true',
				qr/^22012 /
			],
			[ 'not committed', 'pollute', '"commits": false', qr/^$/ ],
			[
				'by a function',  'pollute_without_commit',
				'"fails": false', qr/^$/
			],
			[
				'failed',        'pollute_without_commit',
				'"fails": true', qr/^22012 /
			])
		{
			my ($name, $callback, $arguments, $error) = @$how;

			$node->safe_psql('postgres', 'TRUNCATE states');
			my $answer = run_task("public.$callback",
				qq({"commands": [$commands], $arguments}), $session);
			like($answer, $error, "$who: $what, $name: it ran");
			run_task('public.record_state', '{"what": "after"}', $session);
			is( $node->safe_psql(
					'postgres',
					q{SELECT state FROM states WHERE what = 'after'}),
				$before,
				"$who: $what, $name: nothing is left of it");
			is( $node->safe_psql(
					'postgres', q{SELECT count(DISTINCT pid) FROM states}),
				'1',
				'(and the worker was the same)'
			) if $error ne qr/^22012 / && $name ne 'failed';
		}
	}
	$session->quit;
}

# ------------------------------------------------------------------------
# A procedure learns that it was begun before, even if nothing but the disk of
# the database could know: the file of running tasks is lost here too.

$node->safe_psql(
	'postgres', q{
CREATE PROCEDURE begin_and_wait() LANGUAGE plpgsql AS $$
DECLARE
	attempt integer := attempt FROM taskshed.current_task();
BEGIN
	COMMIT;
	PERFORM pg_advisory_xact_lock_shared(1);
	PERFORM note('attempt ' || attempt);
END $$});
foreach my $session ($holder, $app)
{
	$session->quit;
}
ledger();
foreach my $callback ('begin_and_wait', 'taskshed.execute')
{
	my $kwargs =
	  $callback eq 'begin_and_wait'
	  ? '{}'
	  : '{"command": "CALL begin_and_wait()"}';

	$holder = session($node);
	$holder->query('SELECT pg_advisory_lock(1)');
	$node->safe_psql('postgres',
		"SELECT taskshed.add_task('$callback', kwargs => '$kwargs', task_id => 'begun')"
	);
	await_blocked($node, 1);
	$node->stop('immediate');
	unlink($node->data_dir . '/pg_stat_tmp/taskshed_running')
	  or die 'there is no file of running tasks';
	eval { $holder->quit };
	$node->start;
	await_no_task($node, 'begun');
	is(ledger(), 'attempt 2', "$callback: its second run knows of its first");
	is( $node->safe_psql(
			'postgres', q{
			SELECT string_agg(status, ', ' ORDER BY finished_at, run_id) FROM taskshed.runs WHERE task_id = 'begun'}
		),
		'interrupted, succeeded',
		"$callback: both are in the history");
	$node->safe_psql('postgres', 'TRUNCATE _taskshed.run_0');
}

is( $node->safe_psql(
		'postgres', q{
		SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'}),
	'0',
	'no lock is left');
is($node->safe_psql('postgres', 'SELECT count(*) FROM taskshed.tasks'),
	'0', 'no task is left');
unlike(
	slurp_file($node->logfile),
	qr/PANIC|TRAP|terminated by signal/,
	'no crash');
$node->stop;
done_testing();
