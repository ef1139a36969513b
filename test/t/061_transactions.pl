
# Scheduling in transactions of all kinds: savepoints that are released and rolled
# back, many of them; read-only transactions; SERIALIZABLE ones beside workers that
# are SERIALIZABLE, too; plans and functions that would run in parallel workers.
#
# Quick: promise 1

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use TaskshedTest;
use Test::More;

my $node = taskshed_node('transactions');

# The SQLSTATE of the first error, or the output
sub try_query
{
	return psql_as($node,
		$node->safe_psql('postgres', 'SELECT current_user'), shift);
}

sub ledger
{
	return query(
		q{SELECT coalesce(string_agg(what, ' ' ORDER BY what), '') FROM ledger}
	);
}

# Savepoints
my $later = q{run_at => '2100-01-01'};
query(  add_note('removed', $later)
	  . add_note('not removed', $later)
	  . add_note('moved',       $later)
	  . add_note('not moved',   $later)
	  . add_note('replaced',    $later));
query(
		'BEGIN;'
	  . add_note('a')
	  . 'SAVEPOINT s;'
	  . add_note('lost')
	  . q{SELECT taskshed.remove_task('not removed');
	SELECT taskshed.update_execution_time('not moved', now());}
	  . add_note('a', $later)
	  . 'SAVEPOINT t;'
	  . add_note('lost, too')
	  . 'RELEASE t; ROLLBACK TO s;'
	  . add_note('b')
	  . 'SAVEPOINT u;'
	  . add_note('c')
	  . q{SELECT taskshed.remove_task('removed');
	SELECT taskshed.update_execution_time('moved', now());}
	  . add_note('replaced', 'run_at => now()')
	  . 'RELEASE u; RELEASE s; SAVEPOINT v;'
	  . add_note('last')
	  . 'ROLLBACK TO v;'
	  . add_note('last')
	  . 'COMMIT');
await_drained($node);
is(ledger(), 'a b c last moved replaced', 'what was kept has run, once');
is( query(
		q{SELECT string_agg(task_id, ', ' ORDER BY task_id) FROM taskshed.tasks WHERE run_at = '2100-01-01'}
	),
	'not moved, not removed',
	'and the others are as they were');

# Removed and added again, at all levels
query('TRUNCATE ledger; SELECT taskshed.remove_all_tasks()');
query(  add_note('x', $later)
	  . q{BEGIN; SELECT taskshed.remove_task('x'); SAVEPOINT s;}
	  . add_note('x')
	  . q{ROLLBACK TO s;}
	  . add_note('x', $later)
	  . q{SAVEPOINT t; SELECT taskshed.remove_task('x');}
	  . add_note('x')
	  . 'COMMIT');
await_drained($node);
is(ledger(), 'x', 'a task removed and added again and again');

# Many: half of them are rolled back
query(
	q{TRUNCATE ledger;
	DO $$
	BEGIN
		FOR i IN 1..2000 LOOP
			BEGIN
				PERFORM taskshed.add_task('public.note', kwargs => jsonb_build_object('what', i), task_id => i::text);
				IF i % 2 = 0 THEN
					RAISE EXCEPTION 'no';
				END IF;
			EXCEPTION WHEN raise_exception THEN NULL;
			END;
		END LOOP;
	END $$});
await_drained($node);
is( query(
		q{SELECT count(*), count(DISTINCT what), bool_and(what::int % 2 = 1) FROM ledger}
	),
	'1000|1000|t',
	'of 2000 in subtransactions, half were kept and have run');

# All levels are rolled back but the first
query(  'TRUNCATE ledger; BEGIN;'
	  . add_note('first')
	  . join('', map { "SAVEPOINT s$_;" . add_note("deep $_") } 1 .. 100)
	  . 'ROLLBACK TO s1; COMMIT');
await_drained($node);
is(ledger(), 'first', '100 levels are rolled back');

# Read-only transactions
query(add_note('there', $later));
foreach my $call (
	add_note('x'),
	q{SELECT taskshed.add_tasks('[]');},
	q{SELECT taskshed.remove_task('there');},
	q{SELECT taskshed.remove_all_tasks();},
	q{SELECT taskshed.pause_task('there');},
	q{SELECT taskshed.run_tasks(ARRAY['there']);},
	q{SELECT taskshed.update_execution_time('there', now());},
	q{SELECT taskshed.add_callback('a', 'public.note');})
{
	is(try_query("BEGIN READ ONLY; $call COMMIT"),
		'25006', "an error in a read-only transaction: $call");
}
is( try_query(
		q{BEGIN READ ONLY; SELECT count(*) FROM taskshed.tasks; SELECT (taskshed.fetch_task('there')).task_id;
		SELECT taskshed.next_wakeup() = '2100-01-01'; SELECT count(*) FROM taskshed.status WHERE database = 'postgres'; COMMIT}
	),
	"1\nthere\nt\n1",
	'reading works');

# Parallel query: our functions are never run in parallel workers, and one that
# says it could be, and calls them, gets an error.
query(
	q{CREATE TABLE big AS SELECT n FROM generate_series(1, 20000) n;
	ANALYZE big;
	CREATE FUNCTION unsafe(n int) RETURNS text LANGUAGE sql PARALLEL SAFE AS $$
		SELECT taskshed.add_task('public.note', '2100-01-01', jsonb_build_object('what', n), task_id => 'p') $$;
	CREATE FUNCTION unsafe_removal(n int) RETURNS boolean LANGUAGE plpgsql PARALLEL SAFE AS $$
	BEGIN
		RETURN taskshed.remove_task('there');
	END $$});
my $parallel = q{
	SET parallel_setup_cost = 0; SET parallel_tuple_cost = 0; SET min_parallel_table_scan_size = 0;
	SET max_parallel_workers_per_gather = 2; SET parallel_leader_participation = off;};
unlike(
	query(
		"$parallel EXPLAIN SELECT taskshed.remove_task(n::text) FROM big WHERE n < 0"
	),
	qr/Gather/,
	'no parallel plan with our functions');
like(query("$parallel EXPLAIN SELECT unsafe_removal(n) FROM big"),
	qr/Gather/, 'one with a function that lies');
is(try_query("$parallel SELECT count(unsafe_removal(n)) FROM big"),
	'25000', 'an error in a parallel worker: remove_task');
is(try_query("$parallel SELECT count(unsafe(n)) FROM big"),
	'25000', 'an error in a parallel worker: add_task');
is(query('SELECT count(*) FROM taskshed.tasks'), '1', 'and nothing was done');
is( query(
		"$parallel SELECT count(taskshed.add_task('public.note', kwargs => jsonb_build_object('what', n), task_id => 'p' || n)) FROM big WHERE n <= 500"
	),
	'500',
	'a query of a table that could be scanned in parallel schedules');
await_drained($node);

# SERIALIZABLE sessions beside SERIALIZABLE workers: over our tables nobody fails.
query(
	q{TRUNCATE ledger;
	SELECT taskshed.remove_all_tasks();
	ALTER DATABASE postgres SET default_transaction_isolation = 'serializable';
	CREATE FUNCTION nothing(n int) RETURNS void LANGUAGE sql AS '';
	SELECT taskshed.add_task('nothing', kwargs => '{"n": 0}', every => '1 ms', task_id => 'often ' || i) FROM generate_series(1, 10) i}
);
my @sessions = map { session($node) } 1 .. 4;
foreach my $i (0 .. $#sessions)
{
	is($sessions[$i]->query('SHOW transaction_isolation'),
		'serializable', 'a session is SERIALIZABLE');
	$sessions[$i]->send(
		qq{DO \$\$
		BEGIN
			FOR n IN 1..300 LOOP
				PERFORM taskshed.add_task('nothing', kwargs => jsonb_build_object('n', n), task_id => format('s%s %s', $i, n));
				PERFORM taskshed.add_task('nothing', '2100-01-01', jsonb_build_object('n', n), task_id => format('u%s %s', $i, n));
				PERFORM taskshed.remove_task(format('u%s %s', $i, n - 1));
				PERFORM taskshed.update_execution_time(format('u%s %s', $i, n), '2100-01-02');
				COMMIT;
			END LOOP;
		END \$\$}
	);
}
is($_->result, '', 'a session has had no error') foreach @sessions;
$_->quit foreach @sessions;
await(
	$node,
	q{SELECT NOT EXISTS (SELECT FROM taskshed.tasks WHERE task_id LIKE 's%')},
	'what they have added has run');
is( query(
		q{SELECT count(*) FILTER (WHERE task_id LIKE 's%'), count(*) FILTER (WHERE status <> 'succeeded') FROM taskshed.runs WHERE callback = 'public.nothing'}
	),
	'1200|0',
	'once each, and no run has failed');
is(query(q{SELECT count(*) FROM taskshed.tasks WHERE task_id LIKE 'u%'}),
	'4', 'and the last of each that were not removed are there');
unlike(
	slurp_file($node->logfile),
	qr/could not serialize access/,
	'nothing could not be serialized');

$node->stop;
done_testing();
