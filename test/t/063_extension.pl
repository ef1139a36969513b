
# The extension is dropped and created again: in one transaction, in a loop, while
# callbacks run and while one is at its end, by DROP SCHEMA, and with all of it rolled
# back.  Nothing waits for a callback, deadlocks or crashes, and nothing of before
# takes a task of after for its own, though the internal keys begin anew.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use TaskshedTest;
use Test::More;

# (Who waits long enough to find a deadlock has lost: these are to be avoided, and
# only the session that drops is quick to look for one.)
my $node = taskshed_node('extension', conf => 'deadlock_timeout = 10min');
$node->safe_psql(
	'postgres', q{
	CREATE PROCEDURE proceed(what text, lock integer DEFAULT 1) LANGUAGE plpgsql AS $$
	BEGIN
		COMMIT;
		PERFORM pg_advisory_lock_shared(lock);
		PERFORM pg_advisory_unlock_shared(lock);
		PERFORM public.note(what);
		COMMIT;
	END $$});

my $again = 'DROP EXTENSION taskshed; CREATE EXTENSION taskshed;';

# While callbacks run: none is waited for, and what they do in the end is done.
my $holder = session($node);
$holder->query('SELECT pg_advisory_lock(1)');
query(  add_note('function', undef, 'hold')
	  . add_note('procedure', undef, 'proceed'));
await_blocked($node, 2);
query(  "SET statement_timeout = '60s'; BEGIN; $again"
	  . add_note('new 1', q{run_at => '2100-01-01'})
	  . add_note('new 2', q{run_at => '2100-01-01', every => '1 day'})
	  . add_note('new 3', undef)
	  . 'COMMIT');
await_effects($node, 'new 3', 1);
$holder->query('SELECT pg_advisory_unlock(1)');
await_effects($node, 'function',  1);
await_effects($node, 'procedure', 1);
await(
	$node,
	q{SELECT count(*) = 0 FROM pg_stat_activity WHERE backend_type = 'taskshed worker' AND state = 'active'},
	'they are over');
is( query(
		q{SELECT string_agg(format('%s %s %s', task_id, state, run_count), ', ' ORDER BY task_id) FROM taskshed.tasks}
	),
	'new 1 scheduled 0, new 2 scheduled 0',
	'their ends leave the tasks alone that have their internal keys now');

# At its end, where a run waits for somebody who changes its task
$holder->query('SELECT pg_advisory_lock(1)');
query(add_note('ends', undef, 'hold'));
await_blocked($node, 1);
my $changer = session($node);
$changer->query(q{BEGIN; SELECT taskshed.pause_task('ends')});
$holder->query('SELECT pg_advisory_unlock(1)');
await(
	$node,
	q{SELECT count(*) = 1 FROM pg_stat_activity WHERE backend_type = 'taskshed worker' AND wait_event_type = 'Lock'},
	'a run waits at its end');
my $dropper = session($node);
$dropper->send("BEGIN; $again COMMIT");
await(
	$node,
	q{SELECT count(*) = 1 FROM pg_locks WHERE NOT granted AND mode = 'AccessExclusiveLock'},
	'so does DROP EXTENSION');
$changer->query('COMMIT');
is($dropper->result, '', 'dropped and created');
await_effects($node, 'ends', 1);
is(query('SELECT count(*) FROM taskshed.tasks'), '0', 'no task is there');
query(add_note('after'));
await_effects($node, 'after', 1);
$_->quit foreach ($changer, $dropper, $holder);

# Who waits for it finds the new tables.
my ($first, $second) = (session($node), session($node));
$first->query("BEGIN; $again");
$second->send(add_note('waited'));
await(
	$node,
	q{SELECT count(*) >= 1 FROM pg_locks l JOIN pg_stat_activity a USING (pid)
		WHERE NOT granted AND backend_type = 'client backend'},
	'add_task waits for DROP EXTENSION');
$first->query('COMMIT');
is($second->result, 'waited', 'and finds the new tables');
await_effects($node, 'waited', 1);
$_->quit foreach ($first, $second);

# With those who lock what is dropped in another order: nobody loses a deadlock.
sub await_waiting
{
	my ($session, $what) = @_;

	return await($node,
		"SELECT cardinality(pg_blocking_pids($session->{pid})) > 0",
		"$what waits");
}
my ($holding, $reading, $dropping) = map { session($node) } 1 .. 3;
$_->{pid} = $_->query('SELECT pg_backend_pid()')
  foreach ($holding, $reading, $dropping);
$dropping->query(
	q{SET deadlock_timeout = '1s'; SET client_min_messages = warning});

# tables, and then the views
$reading->query(
	'BEGIN;' . add_note('tables first', q{run_at => '2100-01-01'}));
$dropping->send("BEGIN; $again COMMIT");
await_waiting($dropping, 'DROP EXTENSION');
is($reading->query('SELECT count(*) FROM taskshed.tasks'),
	'1', 'who has locked the tables goes on to read the views');
$reading->query('COMMIT');
is($dropping->result, '', 'dropped');

# The same, if it is not quick: who drops waits for nothing while it holds anything.
$reading->query("SET deadlock_timeout = '1s'; BEGIN; "
	  . add_note('at leisure', q{run_at => '2100-01-01'}));
$dropping->send("BEGIN; $again COMMIT");
await(
	$node,
	"SELECT clock_timestamp() - waitstart > interval '1700 ms' FROM pg_locks WHERE pid = $dropping->{pid} AND NOT granted",
	'DROP EXTENSION has waited for a while');
is($reading->query('SELECT count(*) FROM taskshed.tasks'),
	'1', 'who takes his time to read the views loses nothing');
$reading->query('COMMIT; RESET deadlock_timeout');
is($dropping->result, '', 'dropped');

# views, and then the tables
$holding->query('BEGIN; LOCK TABLE _taskshed.task');
$dropping->send("BEGIN; $again COMMIT");
await_waiting($dropping, 'DROP EXTENSION');
$reading->send('SELECT count(*) FROM taskshed.tasks');
await_waiting($reading, 'who reads a view');
$holding->query('COMMIT');
is($reading->result,  '0', 'who has locked the views goes on to the tables');
is($dropping->result, '',  'dropped');

# a view of somebody's own, and then ours
query('CREATE VIEW own AS SELECT * FROM taskshed.tasks');
$reading->query(q{BEGIN; COMMENT ON VIEW own IS 'locks it'});
$dropping->send(
	'BEGIN; DROP SCHEMA taskshed CASCADE; CREATE EXTENSION taskshed; COMMIT');
await_waiting($dropping, 'DROP SCHEMA');
is($reading->query('SELECT count(*) FROM taskshed.tasks'),
	'0', 'who has locked a view of his own goes on to ours');
$reading->query('COMMIT');
is($dropping->result, '', 'dropped');

# The user's own limits
$holding->query('BEGIN; LOCK TABLE _taskshed.task');
foreach my $limit ('lock_timeout', 'statement_timeout')
{
	like(
		$dropping->query(
			"SET $limit = '500ms'; DROP EXTENSION taskshed; RESET $limit"),
		$limit eq 'lock_timeout'
		? qr/due to lock timeout/
		: qr/due to statement timeout/,
		"$limit is kept to");
}
$holding->query('COMMIT');
is( $dropping->query(
		"BEGIN; SET LOCAL lock_timeout = '1h'; $again SHOW lock_timeout; COMMIT"
	),
	'1h',
	'lock_timeout is as it was');
query(
	q{CREATE FUNCTION refuse() RETURNS event_trigger LANGUAGE plpgsql AS $$
	BEGIN RAISE EXCEPTION 'refused' USING ERRCODE = 'lock_not_available'; END $$;
	CREATE EVENT TRIGGER refuse ON sql_drop WHEN TAG IN ('DROP EXTENSION') EXECUTE FUNCTION refuse()}
);
like($dropping->query('DROP EXTENSION taskshed'),
	qr/refused/, 'what does not get better is not tried for ever');
query('DROP EVENT TRIGGER refuse');
$_->quit foreach ($holding, $reading, $dropping);
query(add_note('and on'));
await_effects($node, 'and on', 1);

# Rolled back: tasks go on.
query(add_note('every', q{every => '20 ms'}));
foreach my $sql (
	'BEGIN; DROP EXTENSION taskshed; ROLLBACK',
	"BEGIN; $again " . add_note('x') . 'ROLLBACK',
	'BEGIN; SAVEPOINT s; DROP EXTENSION taskshed; ROLLBACK TO s;'
	. add_note('kept')
	. 'COMMIT',
	"BEGIN; SAVEPOINT s; $again"
	. add_note('x')
	. 'ROLLBACK TO s; SAVEPOINT t; DROP EXTENSION taskshed; RELEASE t; ROLLBACK'
  )
{
	my $n = query(q{SELECT count(*) FROM ledger WHERE what = 'every'});

	query($sql);
	await(
		$node,
		"SELECT count(*) > $n + 3 FROM ledger WHERE what = 'every'",
		"tasks go on after $sql");
}
await_effects($node, 'kept', 1);
await_effects($node, 'x',    0);

# In a loop, with workers that are busy
foreach my $i (1 .. 15)
{
	query(
		qq{SELECT taskshed.add_task('public.note', kwargs => '{"what": "busy"}', every => '1 ms', task_id => 'b' || n) FROM generate_series(1, 5) n;}
		  . add_note("loop $i"));
	await_effects($node, "loop $i", 1);
	my ($rc, $out, $err) = $node->psql('postgres',
		$i % 3
		? "SET statement_timeout = '60s'; BEGIN; $again COMMIT"
		: "SET statement_timeout = '60s'; $again");
	is($err, '', "dropped and created, $i");
}
query(add_note('last'));
await_effects($node, 'last', 1);

# DROP SCHEMA
my ($rc, $out, $err) = $node->psql('postgres', 'DROP SCHEMA taskshed');
like(
	$err,
	qr/extension taskshed depends on schema|cannot drop schema/,
	'our schema cannot be dropped alone');
foreach my $i (1 .. 10)
{
	query('CREATE EXTENSION IF NOT EXISTS taskshed');
	query(add_note("often $i", q{every => '1 ms'}));
	await(
		$node,
		"SELECT EXISTS (SELECT FROM ledger WHERE what = 'often $i')",
		"a task runs often, time $i");
	query(
		q{SET client_min_messages = warning; SET statement_timeout = '60s'; DROP SCHEMA taskshed CASCADE}
	);
}
is(query(q{SELECT count(*) FROM pg_extension WHERE extname = 'taskshed'}),
	'0', 'the extension goes with it');
await(
	$node,
	q{SELECT count(*) = 0 FROM pg_stat_activity WHERE datname = 'postgres' AND backend_type LIKE 'taskshed%'},
	'all processes leave');
query('CREATE EXTENSION taskshed; ' . add_note('new schema'));
await_effects($node, 'new schema', 1);
query(
	q{CREATE SCHEMA keep;
	CREATE TABLE keep.ledger (what text);
	CREATE FUNCTION keep.note(what text) RETURNS void LANGUAGE sql AS $$ INSERT INTO keep.ledger VALUES (what) $$;
	SELECT taskshed.add_task('public.note', every => '10 ms', kwargs => '{"what": "x"}', task_id => 'dropped', max_attempts => 1);
	SELECT taskshed.add_task('keep.note', every => '10 ms', kwargs => '{"what": "x"}', task_id => 'kept');
	SET client_min_messages = warning;
	DROP SCHEMA public CASCADE;}
);
await(
	$node,
	q{SELECT last_sqlstate IN ('42883', '3F000') FROM taskshed.tasks WHERE task_id = 'dropped'},
	'a callback that was dropped with its schema fails');
query('TRUNCATE keep.ledger');
await($node, 'SELECT count(*) > 3 FROM keep.ledger', 'others go on');

$node->stop;
unlike(
	slurp_file($node->logfile),
	qr/deadlock detected|PANIC|could not open relation|cache lookup failed|was terminated by signal/,
	'nothing in the log that should not be there');
done_testing();
