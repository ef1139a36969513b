
# The command of taskshed.execute is one message of a client: whatever is in it does what psql -c
# does with the same text, in the way of effects, of errors, and of what is left.  The kind of
# mistake: treating several commands, transaction commands or none other than the server does.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use IPC::Run;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use TaskshedTest;
use Test::More;

my $node = taskshed_node('messages',
	conf => "taskshed.max_workers = 1\ntaskshed.worker_idle_timeout = '1d'");

$node->safe_psql(
	'postgres', q{
CREATE ROLE app LOGIN;
CREATE ROLE helper;
GRANT helper TO app;
GRANT EXECUTE ON PROCEDURE taskshed.execute TO app;
CREATE SCHEMA app AUTHORIZATION app;
SET ROLE app;
CREATE TABLE app.t (i integer PRIMARY KEY DEFERRABLE INITIALLY DEFERRED);
CREATE TABLE app.log (n serial, what text);
CREATE FUNCTION app.note(what text) RETURNS text LANGUAGE sql AS
	'INSERT INTO app.log (what) VALUES (note.what) RETURNING what';
CREATE PROCEDURE app.commits() LANGUAGE plpgsql AS $$
BEGIN
	PERFORM app.note('before');
	COMMIT;
	PERFORM app.note('after');
END $$;
});

# What an attempt has left in the tables, which are then empty again.
sub effects
{
	my $log = query(
		q{SELECT string_agg(what, ' ' ORDER BY n) FROM app.log; SELECT string_agg(i::text, ' ' ORDER BY i) FROM app.t;
		SELECT to_regclass('app.made')}
	);

	query('TRUNCATE app.log, app.t; DROP TABLE IF EXISTS app.made');
	return $log;
}

# As a message of a client.  Returns its SQLSTATE.
sub as_client
{
	my ($command) = @_;
	my ($out, $err);

	IPC::Run::run(
		[
			'psql', '-XAtq',     '-v', 'VERBOSITY=sqlstate',
			'-h',   $node->host, '-p', $node->port,
			'-U',   'app',       '-d', 'postgres',
			'-c',   $command
		],
		'>',
		\$out,
		'2>',
		\$err);
	return $err =~ /ERROR:  (\w{5})/ ? $1 : '';
}

# As a task, unchecked or not.  Returns its SQLSTATE.
sub as_task
{
	my ($command, %options) = @_;
	my $more = join '', map { ", $_ => $options{$_}" } sort keys %options;
	my $id   = psql_as($node, 'app',
		"SELECT taskshed.add_task('taskshed.execute', kwargs => jsonb_build_object('command', \$m\$$command\$m\$::text), task_id => 'task'$more)"
	);

	return "refused $id" if $id ne 'task';
	$node->poll_query_until('postgres',
		q{SELECT count(*) FILTER (WHERE state <> 'failed') = 0 FROM taskshed.tasks WHERE task_id = 'task'}
	) or die "$command: has not run";
	my $state = query(
		q{SELECT last_sqlstate FROM taskshed.tasks WHERE task_id = 'task'});
	query(q{SELECT taskshed.remove_task('task', owner => 'app')});
	return $state;
}

sub result
{
	return query(
		q{SELECT coalesce(result, 'NULL') FROM taskshed.runs WHERE task_id = 'task' ORDER BY finished_at DESC, run_id DESC LIMIT 1}
	);
}

# ------------------------------------------------------------------------
# The same as for a client

my $pid;

foreach my $command (

	# what real jobs are
	q{SELECT app.note('a'); SELECT app.note('b');},
	qq{\n  SELECT app.note('a'); SELECT app.note('b');\n},
	q{SET statement_timeout = '30s'; SELECT app.note(current_setting('statement_timeout'))},
	q{TRUNCATE app.t; CREATE TEMPORARY TABLE tmp AS SELECT 7 AS n; INSERT INTO app.t SELECT n FROM tmp; DROP TABLE tmp;},
	q{DELETE FROM app.log; DO $$ BEGIN PERFORM app.note('do'); END $$;},

	# nothing
	'', ';', ' ; ; ', '-- nothing', '/* nothing */;',

	# one transaction
	q{SELECT app.note('a'); SELECT 1 / 0; SELECT app.note('b')},
	q{SELECT app.note('a'); SELECT app.note(count(*)::text) FROM app.log; CREATE TABLE app.made (); SELECT app.note('app.made'::regclass::text)},
	q{CREATE TABLE app.made (); SELECT * FROM app.no_such_table},
	q{INSERT INTO app.t VALUES (1); INSERT INTO app.t VALUES (1); DELETE FROM app.t WHERE ctid = '(0,1)'},
	q{INSERT INTO app.t VALUES (1); INSERT INTO app.t VALUES (1); SELECT app.note('a')},
	q{SELECT app.note('a'); SELECT app.note(x::text) FROM (SELECT count(DISTINCT xmin::text) FROM app.log) AS x},
	q{SET LOCAL work_mem = '77MB'; SELECT app.note(current_setting('work_mem'))},
	q{SET work_mem = '77MB'; SELECT app.note(current_setting('work_mem')); RESET work_mem; SELECT app.note(current_setting('work_mem'))},
	q{SET ROLE helper; SELECT current_user; SELECT app.note('no right')},
	q{DECLARE c CURSOR FOR SELECT 1; FETCH c; SELECT app.note('fetched')},
	q{PREPARE p AS SELECT app.note($1); EXECUTE p ('prepared')},

	# that it ends itself
	q{BEGIN; SELECT app.note('a'); COMMIT},
	q{BEGIN; SELECT app.note('a'); COMMIT; SELECT 1 / 0},
	q{BEGIN; SELECT app.note('a'); END; BEGIN; SELECT app.note('b'); ROLLBACK; SELECT app.note('c')},
	q{BEGIN; SELECT app.note('a'); SELECT 1 / 0; COMMIT},
	q{SELECT app.note('a'); COMMIT; SELECT app.note('b'); SELECT 1 / 0},
	q{SELECT app.note('a'); ROLLBACK; SELECT app.note('b')},
	q{SELECT app.note('a'); BEGIN; SELECT app.note('b'); ROLLBACK; SELECT app.note('c')},
	q{SELECT app.note('a'); BEGIN; SELECT app.note('b'); COMMIT; SELECT app.note('c'); SELECT 1 / 0},
	q{BEGIN; SELECT app.note('a'); BEGIN; COMMIT; COMMIT},
	q{BEGIN; SELECT app.note('a'); COMMIT AND CHAIN; SELECT app.note('b'); ROLLBACK AND CHAIN; SELECT app.note('c'); COMMIT},
	q{SELECT app.note('a'); COMMIT AND CHAIN},
	q{BEGIN; SELECT app.note('a'); SAVEPOINT s; SELECT app.note('b'); ROLLBACK TO s; SELECT app.note('c'); RELEASE s; COMMIT},
	q{BEGIN; SELECT app.note('a'); SAVEPOINT s; SAVEPOINT t; SELECT 1 / 0; ROLLBACK TO s; COMMIT},
	q{BEGIN; SAVEPOINT s; SELECT app.note('a'); COMMIT},
	q{SELECT app.note('a'); SAVEPOINT s; COMMIT},
	q{SAVEPOINT s},
	q{ROLLBACK TO s},
	q{COMMIT},
	q{ROLLBACK},
	q{ABORT; SELECT app.note('a')},
	q{BEGIN; INSERT INTO app.t VALUES (1), (1); COMMIT; SELECT app.note('a')},
	q{BEGIN; SET CONSTRAINTS ALL IMMEDIATE; INSERT INTO app.t VALUES (1); INSERT INTO app.t VALUES (1); COMMIT},
	q{BEGIN; SET LOCAL work_mem = '77MB'; COMMIT; SELECT app.note(current_setting('work_mem'))},
	q{BEGIN; SET work_mem = '77MB'; COMMIT; SELECT app.note(current_setting('work_mem'))},
	q{BEGIN; SET work_mem = '77MB'; ROLLBACK; SELECT app.note(current_setting('work_mem'))},
	q{BEGIN; SET ROLE helper; COMMIT; SELECT current_user},
	q{COMMIT PREPARED 'no such'},
	q{BEGIN; ROLLBACK PREPARED 'no such'; COMMIT},

	# what its transaction is like
	q{BEGIN ISOLATION LEVEL SERIALIZABLE; SELECT app.note(current_setting('transaction_isolation')); COMMIT},
	q{SET TRANSACTION ISOLATION LEVEL REPEATABLE READ; SELECT app.note(current_setting('transaction_isolation'))},
	q{SELECT 1; SET TRANSACTION ISOLATION LEVEL REPEATABLE READ},
	q{SET TRANSACTION ISOLATION LEVEL SERIALIZABLE; INSERT INTO app.t SELECT count(*) FROM app.t},
	q{SET LOCAL transaction_isolation = 'serializable'; INSERT INTO app.t SELECT count(*) FROM app.t; SET work_mem = '77MB'},
	q{SET TRANSACTION ISOLATION LEVEL REPEATABLE READ; INSERT INTO app.t SELECT count(*) FROM app.t},
	q{SET LOCAL transaction_isolation = 'repeatable read'; INSERT INTO app.t SELECT count(*) FROM app.t; SET work_mem = '77MB'},
	q{SET TRANSACTION ISOLATION LEVEL SERIALIZABLE, READ ONLY, DEFERRABLE; SELECT count(*) FROM app.t},
	q{SET TRANSACTION ISOLATION LEVEL SERIALIZABLE, READ ONLY; SELECT count(*) FROM app.t; INSERT INTO app.t VALUES (1)},
	q{BEGIN READ ONLY; SELECT app.note('a'); COMMIT},
	q{SET TRANSACTION READ ONLY; SELECT count(*) FROM app.log},
	q{SET default_transaction_read_only = on; SELECT app.note('a'); COMMIT; SELECT app.note('b')},
	q{SET default_transaction_isolation = 'serializable'; SELECT app.note(current_setting('transaction_isolation'))},
	q{SET default_transaction_isolation = 'serializable'; COMMIT; SELECT app.note(current_setting('transaction_isolation'))},

	# what cannot be in one
	q{VACUUM app.t},
	q{VACUUM app.t; VACUUM app.log},
	q{SELECT app.note('a'); VACUUM app.t},
	q{SELECT app.note('a'); COMMIT; VACUUM app.t},
	q{BEGIN; VACUUM app.t; COMMIT},
	q{CREATE INDEX CONCURRENTLY made ON app.t (i); SELECT 1},
	q{SELECT 1; CALL app.commits()},
	q{BEGIN; CALL app.commits(); COMMIT},
	q{CALL app.commits()},
	q{DISCARD ALL; SELECT 1},
	q{ANALYZE app.t; ANALYZE app.log})
{
	my $client = as_client($command);
	my $done   = effects();

	is(as_task($command), $client, "as for a client: $command");
	is(effects(),         $done,   'and the same is done');

	# The worker is in order: it has nothing of that left, and has not been replaced.
	is( as_task(
			q{INSERT INTO app.log (what) VALUES (concat_ws(' ', current_user, current_setting('role'),
				current_setting('work_mem'), current_setting('statement_timeout'),
				current_setting('transaction_isolation'), current_setting('transaction_read_only'),
				(SELECT count(*) FROM pg_prepared_statements), (SELECT count(*) FROM pg_cursors WHERE name <> '')))}
		),
		'',
		'after it: has run');
	is( (split /\n/, effects())[0],
		'app none 4MB 0 read committed off 0 0',
		'after it: nothing is left');
	my $now = query(
		q{SELECT pid FROM pg_stat_activity WHERE backend_type = 'taskshed worker'}
	);
	$pid = $now if !defined $pid;
	is($now, $pid, 'after it: the same worker');
}

# Ever so many
is(as_task('SELECT app.note(NULL);' x 3000 . q{SELECT app.note('last')}),
	'', '3,001 commands');
is(result(), 'last', 'of which the last says what is returned');
is(query('SELECT count(*) FROM app.log'), '3001', 'and all have run');
query('TRUNCATE app.log');

# ------------------------------------------------------------------------
# What a run returns, and how its outcome is written

is(as_task('SELECT 1; SELECT 2'), '',     'two results');
is(result(),                      '2',    'it is the last');
is(as_task('SELECT 1; COMMIT'),   '',     'the last has none');
is(result(),                      'NULL', 'there is none');
is(as_task(''),                   '',     'an empty command');
is(result(),                      'NULL', 'has none');
is( query(
		q{SELECT string_agg(DISTINCT status, ' ') FROM taskshed.runs WHERE message IS NULL}
	),
	'succeeded',
	'doing nothing is a success');

# What a function sets for its transaction ends before the outcome is written.
psql_as(
	$node, 'app', q{
CREATE FUNCTION app.sets() RETURNS text LANGUAGE plpgsql AS $$
BEGIN
	SET LOCAL search_path = no_such_schema;
	SET LOCAL default_transaction_isolation = 'serializable';
	SET LOCAL lock_timeout = '1ms';
	SET LOCAL ROLE helper;
	SET LOCAL transaction_read_only = on;
	RETURN pg_catalog.current_setting('transaction_isolation');
END $$;
SELECT taskshed.add_task('app.sets', task_id => 'sets')});
await_no_task($node, 'sets');
is( query(
		q{SELECT status || ' ' || result FROM taskshed.runs WHERE task_id = 'sets'}
	),
	'succeeded read committed',
	'a function has set things for its transaction');
is( as_task(
		q{INSERT INTO app.log (what) VALUES (concat_ws(' ', current_user, current_setting('lock_timeout'), current_setting('transaction_isolation')))}
	),
	'',
	'after it: has run');
is(effects(), "app 0 read committed\n\n", 'after it: nothing is left');

# Effects and outcome are one commit as long as the command lets them be.
foreach my $each (
	[ q{SELECT app.note('a'); SELECT app.note('b')}, 't' ],
	[ q{BEGIN; SELECT app.note('a'); COMMIT},        'f' ])
{
	my ($command, $same) = @$each;

	psql_as($node, 'app',
		"SELECT taskshed.add_task('taskshed.execute', kwargs => jsonb_build_object('command', \$m\$$command\$m\$::text), task_id => 'again', every => '1 day')"
	);
	await(
		$node,
		q{SELECT run_count = 1 FROM taskshed.tasks WHERE task_id = 'again'},
		"$command: has run");
	is( query(
			q{SELECT bool_and(l.xmin = a.xmin) FROM app.log l, _taskshed.alarm a JOIN _taskshed.task t USING (id) WHERE t.task_id = 'again'}
		),
		$same,
		"$command: one commit or not");
	query(q{TRUNCATE app.log; SELECT taskshed.remove_task('again', 'app')});
}

# ------------------------------------------------------------------------
# What is refused, when scheduled and in the run

foreach my $each (
	[ q{BEGIN},                                                '25001' ],
	[ q{SELECT app.note('a'); BEGIN; SELECT app.note('b')},    '25001' ],
	[ q{BEGIN; COMMIT AND CHAIN},                              '25001' ],
	[ q{COMMIT; START TRANSACTION},                            '25001' ],
	[ q{BEGIN; SELECT app.note('a'); PREPARE TRANSACTION 'x'}, '0A000' ],
	[ q{SELECT app.note('a'); COPY app.log TO STDOUT},         '0A000' ],
	[ q{SELECT app.note('a'); SELEC 2},                        '42601' ])
{
	my ($command, $sqlstate) = @$each;

	is(as_task($command), "refused $sqlstate", "refused: $command");
	is(as_task($command, validate => 'false'),
		$sqlstate, 'also when it is not checked before it runs');
	is(effects(), "\n\n", 'and nothing of it is done');
}

# Where in the command a mistake is
my ($rc, undef, $err) = $node->psql('postgres',
	q{SELECT taskshed.add_task('taskshed.execute', kwargs => jsonb_build_object('command', E'SELECT 1;\nSELECT 2;\nSELEC 3;'))}
);
like(
	$err,
	qr/ERROR:  syntax error at or near "SELEC"\nLINE 3: SELEC 3;\n +\^\nQUERY:  SELECT 1;\nSELECT 2;\nSELEC 3;/,
	'the line of a mistake is shown');

# ------------------------------------------------------------------------
# Cut short in the middle

my $holder = session($node);
$holder->query('SELECT pg_advisory_lock(1)');

my $waits =
  q{BEGIN; SELECT app.note('a'); COMMIT; BEGIN; SAVEPOINT s; SELECT app.note('b');
	SELECT pg_advisory_lock(1); SELECT app.note('c'); COMMIT};

sub schedule
{
	my ($command, $more) = @_;

	psql_as($node, 'app',
		"SELECT taskshed.add_task('taskshed.execute', kwargs => jsonb_build_object('command', \$m\$$command\$m\$::text), task_id => 'task'$more)"
	);
	return;
}

sub await_waiting
{
	await(
		$node,
		q{SELECT EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND NOT granted)},
		'it waits in the middle');
	return;
}

sub await_end
{
	my ($status, $what) = @_;

	await_state($node, 'task', 'failed');
	is( query(
			q{SELECT last_status || ' ' || last_sqlstate FROM taskshed.tasks WHERE task_id = 'task'}
		),
		$status, $what);
	is(effects(), "a\n\n", 'what was committed stays, and nothing else');
	query(q{SELECT taskshed.remove_task('task', 'app')});
	return;
}

schedule($waits, '');
await_waiting();
is( query(
		q{SELECT query FROM pg_stat_activity WHERE backend_type = 'taskshed worker'}
	),
	$waits,
	'pg_stat_activity shows the command');
psql_as($node, 'app', q{SELECT taskshed.cancel_task('task')});
await_end('cancelled 57014', 'cancelled');

schedule($waits, '');
await_waiting();
query(
	q{SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE backend_type = 'taskshed worker'}
);
await_end('failed 57014', 'its process was cancelled');

schedule($waits, q{, timeout => '200 ms'});
await_end('timeout 57014', 'at its timeout');

# A time limit that the command sets is its own, for each statement behind it.
schedule("SET statement_timeout = '200ms'; $waits", '');
await_end('failed 57014', 'at a statement_timeout that it has set');
is( query(
		q{SELECT message FROM taskshed.runs WHERE task_id = 'task' ORDER BY finished_at DESC, run_id DESC LIMIT 1}
	),
	'canceling statement due to statement timeout',
	'which the message says');
is( as_task(
		q{SET statement_timeout = '2s'; SELECT pg_sleep(1.2); SELECT pg_sleep(1.2)}
	),
	'',
	'it is for each statement, as for a client');

# That of the role is not.
query(q{ALTER ROLE app SET statement_timeout = '50ms'});
is(as_task(q{SELECT pg_sleep(0.2); SELECT app.note('done')}),
	'', 'the role has one');
is(effects(), "done\n\n", 'which does not end a run');
query(q{ALTER ROLE app RESET statement_timeout});

# A worker that goes in the middle has the task run again.
schedule($waits, '');
await_waiting();
query(
	q{SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type = 'taskshed worker'}
);
await(
	$node,
	q{SELECT count(*) = 2 FROM app.log},
	'run again, and waiting again');
$holder->query('SELECT pg_advisory_unlock(1)');
await_no_task($node, 'task');
is(effects(), "a a b c\n\n", 'what was committed before was done twice');

# ------------------------------------------------------------------------
# Trying it

schedule(q{SELECT app.note('a'); SELECT app.note('b')},
	q{, run_at => '2100-01-01'});
is(psql_as($node, 'app', q{SELECT taskshed.try_task('task')}),
	'b', 'several commands can be tried');
is(effects(), "a b\n\n", 'and are done');
schedule(q{-- nothing}, q{, run_at => '2100-01-01'});
is(psql_as($node, 'app', q{SELECT taskshed.try_task('task') IS NULL}),
	't', 'so can nothing');
schedule(q{SELECT app.note('a'); COMMIT; SELECT app.note('b')},
	q{, run_at => '2100-01-01'});
is(psql_as($node, 'app', q{SELECT taskshed.try_task('task')}),
	'0A000', 'not what ends transactions');
is(effects(), "\n\n", 'of which nothing is done');

# Under another default, too.  (The role cannot schedule then.)
query(
	q{SELECT taskshed.remove_task('task', 'app');
	ALTER ROLE app SET default_transaction_isolation = 'serializable';
	ALTER ROLE app SET default_transaction_read_only = on}
);
foreach my $each (
	[
		q{BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE; SELECT app.note(current_setting('transaction_isolation')); COMMIT},
		'succeeded',
		"read committed\n\n"
	],
	[ q{SELECT app.note('a'); SELECT app.note('b')}, 'failed', "\n\n" ])
{
	my ($command, $status, $done) = @$each;

	query(
		"SELECT taskshed.add_task('taskshed.execute', kwargs => jsonb_build_object('command', \$m\$$command\$m\$::text),
			task_id => 'other', owner => 'app')"
	);
	await(
		$node,
		q{SELECT count(*) FILTER (WHERE state <> 'failed') = 0 FROM taskshed.tasks},
		'has run with other defaults');
	is( query(
			q{SELECT status FROM taskshed.runs WHERE task_id = 'other' ORDER BY finished_at DESC, run_id DESC LIMIT 1}
		),
		$status,
		"with other defaults, which count unless it says otherwise: $command"
	);
	is(effects(), $done, 'and its effect');
	query(q{SELECT taskshed.remove_all_tasks('app')});
}

no_crash($node);
$holder->quit;
$node->stop;
done_testing();
