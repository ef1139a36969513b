
# taskshed.execute runs one command at top level, as its owner: also those that
# no function can run.  And current_task(), which tells a run about itself.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use TaskshedTest;
use Test::More;

my $node = taskshed_node('execute');

$node->safe_psql(
	'postgres', q{
CREATE ROLE app LOGIN;
CREATE ROLE outsider LOGIN;
CREATE ROLE helper;
GRANT helper TO app;
GRANT EXECUTE ON PROCEDURE taskshed.execute TO app;
CREATE SCHEMA app AUTHORIZATION app;
SET ROLE app;
CREATE TABLE app.orders (id integer PRIMARY KEY, paid boolean);
INSERT INTO app.orders SELECT i, i % 2 = 0 FROM generate_series(1, 1000) i;
CREATE MATERIALIZED VIEW app.totals AS SELECT paid, count(*) AS n FROM app.orders GROUP BY paid;
CREATE UNIQUE INDEX ON app.totals (paid);
CREATE PROCEDURE app.in_batches(n integer) LANGUAGE plpgsql AS $$
BEGIN
	FOR i IN 1 .. n LOOP
		PERFORM public.note('batch ' || i);
		COMMIT;
	END LOOP;
END $$;
});

my $app = session($node);
$app->query('SET SESSION AUTHORIZATION app');
my $boss = session($node);

# Runs a command as a task; returns its error.
sub execute
{
	my ($command, $session) = @_;

	is( ($session || $app)->query(
			qq{SELECT taskshed.add_task('taskshed.execute', kwargs => jsonb_build_object('command', \$taskshed\$$command\$taskshed\$::text), task_id => 'task')}
		),
		'task',
		"$command: is scheduled");
	await(
		$node, q{
		SELECT count(*) FILTER (WHERE state <> 'failed') = 0 FROM taskshed.tasks WHERE task_id = 'task'},
		"$command: has run");
	my $error = $node->safe_psql('postgres',
		q{SELECT last_sqlstate || ' ' || last_error FROM taskshed.tasks WHERE task_id = 'task'}
	);
	$node->safe_psql('postgres',
		q{SELECT taskshed.remove_task('task', owner => owner) FROM taskshed.tasks WHERE task_id = 'task'}
	);
	return $error;
}

# ------------------------------------------------------------------------
# What no function can do

is(execute('VACUUM (ANALYZE) app.orders'), '', 'VACUUM');
await(
	$node,
	q{SELECT vacuum_count = 1 AND analyze_count = 1 FROM pg_stat_user_tables WHERE relname = 'orders'},
	'it did vacuum');
my $filenode = query(q{SELECT pg_relation_filenode('app.orders')});
is(execute('VACUUM FULL app.orders'), '', 'VACUUM FULL');
isnt(query(q{SELECT pg_relation_filenode('app.orders')}),
	$filenode, 'it did rewrite');
is(execute('CREATE INDEX CONCURRENTLY orders_paid ON app.orders (paid)'),
	'', 'CREATE INDEX CONCURRENTLY');
is( query(
		q{SELECT indisvalid FROM pg_index WHERE indexrelid = 'app.orders_paid'::regclass}
	),
	't',
	'the index is valid');
is(execute('REINDEX INDEX CONCURRENTLY app.orders_paid'),
	'', 'REINDEX CONCURRENTLY');
is(execute('DROP INDEX CONCURRENTLY app.orders_paid'),
	'', 'DROP INDEX CONCURRENTLY');
is(query(q{SELECT to_regclass('app.orders_paid') IS NULL}),
	't', 'the index is gone');
is(execute('UPDATE app.orders SET paid = true WHERE id <= 100'), '',
	'UPDATE');
is(execute('REFRESH MATERIALIZED VIEW CONCURRENTLY app.totals'),
	'', 'REFRESH MATERIALIZED VIEW CONCURRENTLY');
is(query('SELECT n FROM app.totals WHERE paid'), '550', 'it is fresh');
is(execute('CALL app.in_batches(3)'),            '',    'CALL');
is( execute(
		q{DO $do$ BEGIN PERFORM public.note('do'); COMMIT; PERFORM public.note('undone'); ROLLBACK; END $do$}
	),
	'', 'DO');
is( execute(
		q{INSERT INTO public.ledger (what) VALUES ('inserted') RETURNING *}),
	'', 'INSERT');
is( execute(
		'WITH gone AS (DELETE FROM app.orders WHERE id > 990 RETURNING *) SELECT public.note(count(*)::text) FROM gone'
	),
	'', 'WITH');
is( query(q{SELECT string_agg(what, ', ' ORDER BY started) FROM ledger}),
	'batch 1, batch 2, batch 3, do, inserted, 10',
	'each had its effect');
is(query(q{SELECT string_agg(DISTINCT who, ', ') FROM ledger}),
	'app/app', 'each as the owner');
is(execute('CREATE TABLE app.made AS SELECT 1 AS i;'),
	'', 'a trailing semicolon, and DDL');
is(execute('/* a comment */ TABLE app.made -- another'), '', 'comments');
is(execute('EXPLAIN (ANALYZE) SELECT 1'),                '', 'EXPLAIN');
is(execute('CREATE DATABASE made', $boss), '', 'CREATE DATABASE');
is(execute('DROP DATABASE made', $boss),   '', 'DROP DATABASE');
is(execute('CHECKPOINT', $boss),           '', 'CHECKPOINT');

# Errors are those of the command.
like(execute('SELECT 1 / 0'), qr/^22012 division by zero/,    'an error');
like(execute('SELECT * FROM app.no_such_table'), qr/^42P01 /, 'another');
like(execute('DROP TABLE public.ledger'),
	qr/^42501 /, 'no more rights than those of the owner');
like(execute('VACUUM app.no_such_table'),
	qr/^42P01 /, 'VACUUM of what is not there');
like(
	execute(
		q{DO $do$ BEGIN PERFORM public.note('kept'); COMMIT; PERFORM 1 / 0; END $do$}
	),
	qr/^22012 /,
	'an error after COMMIT');
is(query(q{SELECT count(*) FROM ledger WHERE what = 'kept'}),
	'1', 'what was committed stays');
like(execute('EXECUTE no_such_statement'),
	qr/^26000 /, 'a prepared statement of nobody');
like(execute('FETCH ALL FROM no_such_cursor'),
	qr/^34000 /, 'a cursor of nobody');

# What needs a client has none here: the server's own input and output are not
# for it.
foreach my $command ('COPY app.made FROM STDIN', 'COPY app.made TO STDOUT')
{
	like(
		$app->query(
			qq{SELECT taskshed.add_task('taskshed.execute', kwargs => '{"command": "$command"}')}
		),
		qr/cannot COPY to\/from client/,
		"$command: is refused");
	$app->query(
		qq{SELECT taskshed.add_task('taskshed.execute', kwargs => '{"command": "$command"}', task_id => 'copy', validate => false)}
	);
	await(
		$node,
		q{SELECT count(*) FILTER (WHERE state <> 'failed') = 0 FROM taskshed.tasks WHERE task_id = 'copy'},
		"$command: has run unchecked");
	is( query(
			q{SELECT last_sqlstate FROM taskshed.tasks WHERE task_id = 'copy'}
		),
		'0A000',
		'refused then, too');
	$app->query(q{SELECT taskshed.remove_task('copy')});
}
is(query('SELECT count(*) FROM app.made'), '1', 'nothing was copied');

# Settings and whatever else a session can keep end with the run.
foreach my $command (
	'SET ROLE helper',
	"SET work_mem = '77MB'",
	'SET default_transaction_read_only = on',
	'DISCARD ALL',
	'RESET ALL',
	'PREPARE leak AS SELECT 1',
	'DECLARE leak CURSOR WITH HOLD FOR SELECT 1',
	'SELECT pg_advisory_lock(77)',
	'CREATE TEMP TABLE leak (i integer)',
	'DEALLOCATE ALL',
	'LISTEN leak')
{
	my $error = execute($command);
	like(
		$error,
		$command eq 'LISTEN leak' ? qr/^(0A000|55000) |^$/ : qr/^$/,
		"$command: has run");
	is( execute(
			q{INSERT INTO public.ledger (what) SELECT concat_ws(', ', 'state', session_user, current_user,
			current_setting('work_mem'), current_setting('default_transaction_read_only'),
			(SELECT count(*) FROM pg_prepared_statements), (SELECT count(*) FROM pg_cursors WHERE name <> ''),
			(SELECT count(*) FROM pg_locks WHERE pid = pg_backend_pid() AND locktype = 'advisory'),
			coalesce(to_regclass('pg_temp.leak')::text, '-'), current_setting('application_name'))}
		),
		'',
		"after $command: has run");
	is( query(q{SELECT what FROM ledger WHERE what LIKE 'state%'}),
		'state, app, app, 4MB, off, 0, 0, 0, -, taskshed worker',
		"after $command: nothing is left");
	query(q{DELETE FROM ledger WHERE what LIKE 'state%'});
}

# ------------------------------------------------------------------------
# Who may

my $outsider = session($node);
$outsider->query('SET SESSION AUTHORIZATION outsider');
like(
	$outsider->query(
		q{SELECT taskshed.add_task('taskshed.execute', kwargs => '{"command": "VACUUM"}')}
	),
	qr/permission denied for (function|procedure) taskshed.execute/,
	'refused without EXECUTE');
like(
	$outsider->query(
		q{SELECT taskshed.add_callback('run', 'taskshed.execute'); SELECT taskshed.add_task('run', kwargs => '{"command": "VACUUM"}')}
	),
	qr/permission denied for (function|procedure) taskshed.execute/,
	'by another name too');
$outsider->query(
	q{SELECT taskshed.add_task('taskshed.execute', kwargs => '{"command": "CREATE TABLE public.sneaked ()"}', task_id => 'sneaked', validate => false)}
);
await(
	$node,
	q{SELECT count(*) FILTER (WHERE state <> 'failed') = 0 FROM taskshed.tasks WHERE task_id = 'sneaked'},
	'not checked when scheduled, it is when it runs');
is( query(
		q{SELECT to_regclass('public.sneaked') IS NULL, (SELECT last_sqlstate FROM taskshed.tasks WHERE task_id = 'sneaked')}
	),
	't|42501',
	'refused, and not executed');
$outsider->query(
	q{SELECT taskshed.add_task('taskshed.execute', '2100-01-01', kwargs => '{"command": "CREATE TABLE public.sneaked ()"}', task_id => 'sneaked', validate => false)}
);
like(
	$outsider->query(q{SELECT taskshed.try_task('sneaked')}),
	qr/permission denied for (function|procedure) (taskshed.)?execute/,
	'refused to who tries it');
$app->query(
	q{SELECT taskshed.add_task('taskshed.execute', '2100-01-01', kwargs => '{"command": "SELECT public.note(''revoked'')"}', task_id => 'revoked')}
);
$node->safe_psql(
	'postgres', q{
	REVOKE ALL ON PROCEDURE taskshed.execute FROM app;
	SELECT taskshed.update_execution_time('revoked', now(), owner => 'app')});
await(
	$node,
	q{SELECT count(*) FILTER (WHERE state <> 'failed') = 0 FROM taskshed.tasks WHERE task_id = 'revoked'},
	'it runs after the right is gone');
is( query(
		q{SELECT (SELECT count(*) FROM ledger WHERE what = 'revoked'), (SELECT last_sqlstate FROM taskshed.tasks WHERE task_id = 'revoked')}
	),
	'0|42501',
	'refused, and not executed');
like(
	$boss->query(q{CALL taskshed.execute('SELECT 1')}),
	qr/taskshed.execute can only be scheduled/,
	'it cannot be called');
query(
	q{SELECT taskshed.remove_all_tasks(owner => 'app'), taskshed.remove_all_tasks(owner => 'outsider')}
);

# ------------------------------------------------------------------------
# current_task()

$node->safe_psql(
	'postgres', q{
CREATE TABLE seen (n serial, place text, task_id text, group_id text, run_at timestamptz, attempt integer, lag interval,
	previous_run_at timestamptz);
GRANT ALL ON seen, seen_n_seq TO PUBLIC;
CREATE FUNCTION see(place text) RETURNS void LANGUAGE sql AS $$
	INSERT INTO public.seen (place, task_id, group_id, run_at, attempt, lag, previous_run_at)
	SELECT see.place, t.* FROM taskshed.current_task() t
$$;
CREATE PROCEDURE see_twice() LANGUAGE plpgsql AS $$
BEGIN
	PERFORM public.see('before COMMIT');
	COMMIT;
	PERFORM public.see('after COMMIT');
	COMMIT;
	ROLLBACK;
	PERFORM public.see('after ROLLBACK');
END $$;
CREATE FUNCTION see_trigger() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM public.see('deferred trigger'); RETURN NULL; END $$;
CREATE TABLE watched (i integer);
GRANT ALL ON watched TO PUBLIC;
CREATE CONSTRAINT TRIGGER watch AFTER INSERT ON watched DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION see_trigger();
CREATE FUNCTION see_deferred() RETURNS void LANGUAGE sql AS 'INSERT INTO public.watched VALUES (1)';
CREATE FUNCTION see_definer() RETURNS void LANGUAGE sql SECURITY DEFINER AS $$SELECT public.see('definer')$$;
CREATE FUNCTION try_it() RETURNS void LANGUAGE sql AS $$SELECT taskshed.try_task('other')$$;
GRANT EXECUTE ON PROCEDURE taskshed.execute TO app;
});
is( query(
		q{SELECT taskshed.current_task() IS NULL, (taskshed.current_task()).task_id IS NULL}
	),
	't|t',
	'NULL outside of a run');
$app->query(
	q{SELECT taskshed.add_task('public.see', kwargs => '{"place": "function"}', task_id => 'f', group_id => 'group');
	SELECT taskshed.add_task('public.see_twice', task_id => 'p');
	SELECT taskshed.add_task('public.see_deferred', task_id => 'd');
	SELECT taskshed.add_task('public.see_definer', task_id => 's');
	SELECT taskshed.add_task('taskshed.execute', kwargs => '{"command": "SELECT public.see(''execute'')"}', task_id => 'e');
	SELECT taskshed.add_task('public.see', '2100-01-01', kwargs => '{"place": "tried"}', task_id => 'other');
	SELECT taskshed.add_task('public.try_it', task_id => 't');
	SELECT taskshed.add_task('public.see', '2000-01-01', kwargs => '{"place": "late"}', task_id => 'l')}
);
await($node, q{SELECT count(*) = 1 FROM taskshed.tasks}, 'all have run');
is( query(
		q{SELECT string_agg(concat_ws(' ', place, task_id, group_id, attempt, previous_run_at), ', ' ORDER BY task_id, n) FROM seen}
	),
	'deferred trigger d 1, execute e 1, function f group 1, late l 1, before COMMIT p 1, after COMMIT p 1, after ROLLBACK p 1, definer s 1, tried t 1',
	'seen everywhere in a run');
is( query(
		q{SELECT run_at = '2000-01-01', lag > '20 years' FROM seen WHERE task_id = 'l'}
	),
	't|t',
	'the time it was for, and how late it started');
is( query(
		q{SELECT bool_and(lag >= '0' AND lag < '1 minute' AND run_at < now()) FROM seen WHERE task_id <> 'l'}
	),
	't',
	'others are not late');
$app->query(
	q{SELECT taskshed.try_task('other'); SELECT taskshed.remove_task('other')}
);
is( query(
		q{SELECT count(*) FROM seen WHERE place = 'tried' AND task_id IS NULL}
	),
	'1',
	'NULL where a task is only tried');
query('TRUNCATE seen');

# A later version may tell more of a run: what uses it goes on as it is.
$node->safe_psql(
	'postgres', q{
CREATE VIEW the_run AS SELECT t.task_id, (taskshed.current_task()).attempt, t IS NULL AS is_null FROM taskshed.current_task() AS t;
CREATE FUNCTION see_view() RETURNS text LANGUAGE sql BEGIN ATOMIC
	SELECT concat_ws(' ', v.task_id, v.attempt, v.is_null, (taskshed.current_task()).group_id) FROM public.the_run v;
END;
CREATE FUNCTION see_row() RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	me record := taskshed.current_task();
	typed taskshed.current_run := taskshed.current_task();
BEGIN
	RETURN concat_ws(' ', me.task_id, typed.attempt, to_jsonb(me) = to_jsonb(typed), to_jsonb(me) -> 'more');
END $$;
GRANT SELECT ON the_run TO PUBLIC});
foreach my $seen ([ 'v 1 f g', 'r 1 t' ], [ 'v 1 f g', 'r 1 t null' ])
{
	$app->query(
		q{SELECT taskshed.add_task('public.see_view', task_id => 'v', group_id => 'g'); SELECT taskshed.add_task('public.see_row', task_id => 'r')}
	);
	await($node, q{SELECT count(*) = 0 FROM taskshed.tasks}, 'both have run');
	is_deeply(
		[
			split /\n/,
			query(
				q{SELECT DISTINCT ON (task_id) result FROM taskshed.runs WHERE task_id IN ('v', 'r') ORDER BY task_id DESC, finished_at DESC, run_id DESC}
			)
		],
		$seen,
		'what a view, a BEGIN ATOMIC function and variables see');
	query('ALTER TYPE taskshed.current_run ADD ATTRIBUTE more text')
	  if $seen->[1] !~ /null/;
}
query('ALTER TYPE taskshed.current_run DROP ATTRIBUTE more');
$app->query(
	q{SELECT taskshed.add_task('public.see', kwargs => '{"place": "again"}', task_id => 'r', every => '20 ms')}
);
await($node, q{SELECT run_count >= 3 FROM taskshed.tasks WHERE task_id = 'r'},
	'it recurs');
$app->query(q{SELECT taskshed.remove_task('r')});
is( query(
		q{SELECT count(*) >= 3, count(*) FILTER (WHERE previous_run_at IS DISTINCT FROM before), bool_and(attempt = 1)
		FROM (SELECT *, lag(run_at) OVER (ORDER BY n) AS before FROM seen) s}),
	't|0|t',
	'the time the run before was for');

no_crash($node);
$_->quit foreach $app, $boss, $outsider;
$node->stop;
done_testing();
