
# Scheduling from where things happen: callbacks that schedule others or change
# their own task, triggers, procedures that commit, transactions and savepoints
# that are rolled back.
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

my $node = taskshed_node('from_inside', conf => "taskshed.max_workers = 8\n");
my $app;

$node->safe_psql('postgres', 'CREATE ROLE app LOGIN');

# Runs SQL as the role that owns the tasks.
sub as_app
{
	my ($sql) = @_;
	return $node->safe_psql('postgres', "SET ROLE app; $sql");
}

sub ledger
{
	my ($pattern) = @_;
	return $node->safe_psql('postgres',
		"SELECT count(*) FROM ledger WHERE what LIKE '$pattern'");
}

# Chains and trees of tasks.
$node->safe_psql(
	'postgres', q{
CREATE FUNCTION chain(n integer) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	PERFORM note('chain ' || n);
	IF n > 1 THEN
		PERFORM taskshed.add_task('chain', kwargs => jsonb_build_object('n', n - 1));
	END IF;
END $$;
CREATE FUNCTION tree(depth integer, path text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	PERFORM note('tree ' || path);
	IF depth > 0 THEN
		PERFORM taskshed.add_task('tree', kwargs => jsonb_build_object('depth', depth - 1, 'path', path || i))
		FROM generate_series(0, 1) AS i;
	END IF;
END $$});
as_app(
	q{
SELECT taskshed.add_task('chain', kwargs => '{"n": 100}');
SELECT taskshed.add_task('tree', kwargs => '{"depth": 6, "path": "x"}')});
await_no_task($node, '%');
is( $node->safe_psql(
		'postgres',
		q{SELECT count(*), count(DISTINCT what), count(*) FILTER (WHERE what LIKE 'chain%') FROM ledger}
	),
	'227|227|100',
	'callbacks schedule callbacks, each once');

# Callbacks that change their own task.  The last word stands.
my $far = q{date_trunc('day', now() + interval '2 days')};
$node->safe_psql(
	'postgres', q{
CREATE FUNCTION inside(what text, commands text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	PERFORM note(what);
	EXECUTE commands;
	PERFORM note(what || ' end');
END $$});

# Runs such a callback as a one-off and as a recurring task.  In the commands,
# ID stands for the task's id, REPLACE for a call that replaces it, and
# REPLACE_FAR for one that does so for a later time.
sub inside
{
	my ($name, $commands, $once, $every) = @_;

	foreach my $type ('once', 'every')
	{
		my $id       = "$type $name";
		my $interval = $type eq 'once' ? 'NULL' : "'1 day'";
		my $replace =
		  qq{taskshed.add_task('inside', %s, '{"what": "new", "commands": ""}', task_id => '$id', every => $interval)};
		my $do = $commands;

		$do =~ s/REPLACE_FAR/sprintf $replace, $far/ge;
		$do =~ s/REPLACE/sprintf $replace, 'NULL'/ge;
		$do =~ s/ID/'$id'/g;
		as_app(
			qq{SELECT taskshed.add_task('inside', kwargs => jsonb_build_object('what', '$id', 'commands', \$\$$do\$\$),
			task_id => '$id', every => $interval)});
		await_calm($node);
		if ($type eq 'once')
		{
			is(plan_of($node, $id), $once, "a one-off that does $name");
		}
		else
		{
			is(plan_of($node, $id), $every,
				"a recurring one that does $name");
		}
	}
	is(ledger("once $name%") . ledger("every $name%"), '22', 'each ran once');
	return;
}

inside('nothing', '', '', 'scheduled|1|later|every nothing');
inside(
	'pause', 'SELECT taskshed.pause_task(ID)',
	'',      'paused|1|later|every pause');
inside('pause resume',
	'SELECT taskshed.pause_task(ID); SELECT taskshed.resume_task(ID)',
	'', 'scheduled|1|later|every pause resume');
inside(
	'move',
	"SELECT taskshed.update_execution_time(ID, $far)",
	'scheduled|1|in 2 days|once move',
	'scheduled|1|in 2 days|every move');
inside(
	'move pause',
	"SELECT taskshed.update_execution_time(ID, $far); SELECT taskshed.pause_task(ID)",
	'paused|1|in 2 days|once move pause',
	'paused|1|in 2 days|every move pause');
inside('remove',     'SELECT taskshed.remove_task(ID)',    '', '');
inside('remove all', 'SELECT taskshed.remove_all_tasks()', '', '');
inside(
	'replace',
	"SELECT REPLACE_FAR",
	'scheduled|0|in 2 days|new',
	'scheduled|1|in 2 days|new');
inside(
	'replace remove',
	"SELECT REPLACE_FAR; SELECT taskshed.remove_task(ID)",
	'', '');
inside(
	'remove replace',
	"SELECT taskshed.remove_task(ID); SELECT REPLACE_FAR",
	'scheduled|0|in 2 days|new',
	'scheduled|0|in 2 days|new');
inside(
	'all',
	"SELECT taskshed.pause_task(ID); SELECT REPLACE; SELECT taskshed.remove_task(ID); SELECT REPLACE; "
	  . "SELECT taskshed.pause_task(ID); SELECT taskshed.update_execution_time(ID, $far); SELECT taskshed.resume_task(ID)",
	'scheduled|0|in 2 days|new',
	'scheduled|0|in 2 days|new');

# Replaced for now: the new one runs too.
as_app(
	q{SELECT taskshed.add_task('inside', kwargs => jsonb_build_object('what', 'first', 'commands',
		$$SELECT taskshed.add_task('note', kwargs => '{"what": "second"}', task_id => 'again')$$), task_id => 'again')}
);
await_no_task($node, 'again');
is(ledger('first%') . ledger('second'),
	'21', 'one that replaces itself for now runs again');

# One that moves itself on and on, as a callback with a schedule of its own does.
$node->safe_psql(
	'postgres', q{
CREATE FUNCTION countdown() RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	PERFORM note('countdown');
	IF (SELECT count(*) FROM ledger WHERE what = 'countdown') < 20 THEN
		PERFORM taskshed.update_execution_time('countdown', clock_timestamp());
	END IF;
END $$});
as_app(q{SELECT taskshed.add_task('countdown', task_id => 'countdown')});
await_no_task($node, 'countdown');
is(ledger('countdown'), '20', 'one that moves itself on');

# What a callback that fails has said is not said.
as_app(
	qq{SELECT taskshed.add_task('inside', kwargs => jsonb_build_object('what', 'fails', 'commands',
		\$\$SELECT taskshed.update_execution_time('fails', $far);
		SELECT taskshed.add_task('note', kwargs => '{"what": "never"}'); SELECT 1/0\$\$), task_id => 'fails')}
);
await_calm($node);
is(plan_of($node, 'fails'),
	'failed|1|past|fails', 'one that moves itself and fails has failed');
is(ledger('fails') . ledger('never'),
	'00', 'and what it has scheduled never was');

# A subtransaction inside a callback.
as_app(
	qq{SELECT taskshed.add_task('inside', kwargs => jsonb_build_object('what', 'catches', 'commands',
		\$cmd\$DO \$do\$ BEGIN
			PERFORM taskshed.add_task('note', kwargs => '{"what": "never"}');
			PERFORM taskshed.remove_task('catches');
			PERFORM 1/0;
		EXCEPTION WHEN division_by_zero THEN
			PERFORM taskshed.add_task('note', kwargs => '{"what": "caught"}');
		END \$do\$\$cmd\$), task_id => 'catches', every => '1 day')});
await(
	$node,
	q{SELECT count(*) = 1 FROM ledger WHERE what = 'caught'},
	'the second has run');
await_calm($node);
is(plan_of($node, 'catches'),
	'scheduled|1|later|catches', 'what a subtransaction did is rolled back');
is(ledger('never'), '0', 'what it has scheduled too');
as_app('SELECT taskshed.remove_all_tasks()');

# A trigger schedules, and the transaction decides.
$node->safe_psql(
	'postgres', q{
CREATE TABLE orders (id integer PRIMARY KEY, placed timestamptz NOT NULL DEFAULT now());
GRANT ALL ON orders TO PUBLIC;
CREATE FUNCTION remind() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	PERFORM taskshed.add_task('note', kwargs => jsonb_build_object('what', 'order ' || new.id),
		task_id => 'order ' || new.id);
	RETURN NULL;
END $$;
CREATE TRIGGER remind AFTER INSERT ON orders FOR EACH ROW EXECUTE FUNCTION remind()}
);
$app = session($node);
$app->query('SET ROLE app');
$app->query('INSERT INTO orders SELECT generate_series(1, 10)');
$app->query('BEGIN; INSERT INTO orders VALUES (11); ROLLBACK');
$app->query(
	'BEGIN; INSERT INTO orders VALUES (12); SAVEPOINT s; INSERT INTO orders VALUES (13);'
	  . 'ROLLBACK TO s; INSERT INTO orders VALUES (14); RELEASE s; INSERT INTO orders VALUES (15)'
);
is( as_app(
		q{SELECT count(*) FROM taskshed.tasks WHERE task_id ~ 'order 1[2-5]'}
	),
	'0',
	'nobody sees what is not committed');
$app->query('COMMIT');
$app->query(
	q{INSERT INTO orders VALUES (1) ON CONFLICT DO NOTHING; INSERT INTO orders VALUES (16) ON CONFLICT DO NOTHING}
);
await_no_task($node, 'order%');
is( $node->safe_psql(
		'postgres',
		q{SELECT string_agg(what, ',' ORDER BY length(what), what) FROM ledger WHERE what LIKE 'order %'}
	),
	join(',', map { "order $_" } (1 .. 10, 12, 14, 15, 16)),
	'a trigger schedules what is committed, and nothing else');

# A task that is only due at commit is started then, however old.
$app->query(
	q{BEGIN; SELECT taskshed.add_task('note', kwargs => '{"what": "in time"}', task_id => 'waits');
	SELECT taskshed.add_task('note', now() - interval '1 day', kwargs => '{"what": "in time"}')}
);
as_app(
	q{SELECT taskshed.add_task('note', kwargs => '{"what": "overtakes"}')});
await(
	$node,
	q{SELECT count(*) = 1 FROM ledger WHERE what = 'overtakes'},
	'another has run');
is(ledger('in time'), '0', 'nothing runs before it is committed');
$app->query('COMMIT');
await(
	$node,
	q{SELECT count(*) = 2 FROM ledger WHERE what = 'in time'},
	'what was committed has run');

# Changes that are rolled back.
as_app(
	q{SELECT taskshed.add_task('note', now() + interval '1 day', '{"what": "stays"}', task_id => 'stays', every => '1 h')}
);
my $before = as_app(q{SELECT t FROM taskshed.tasks t});
$app->query(
	q{BEGIN; SELECT taskshed.pause_task('stays'); SELECT taskshed.update_execution_time('stays', now());
	SELECT taskshed.add_task('note', kwargs => '{"what": "never"}', task_id => 'stays'); SELECT taskshed.remove_task('stays');
	SELECT taskshed.add_task('note', kwargs => '{"what": "never"}', task_id => 'stays'); ROLLBACK}
);
$app->query(
	q{BEGIN; SAVEPOINT s; SELECT taskshed.update_execution_time('stays', now()); ROLLBACK TO s; COMMIT}
);
as_app(q{SELECT taskshed.add_task('note', kwargs => '{"what": "wakes"}')});
await(
	$node,
	q{SELECT count(*) = 1 FROM ledger WHERE what = 'wakes'},
	'another has run');
is(as_app(q{SELECT t FROM taskshed.tasks t}),
	$before, 'changes that are rolled back never were');
is(ledger('never') . ledger('stays'), '00', 'and nothing has run');

# A procedure that commits in between.
$node->safe_psql(
	'postgres', q{
CREATE PROCEDURE commits() LANGUAGE plpgsql AS $$
BEGIN
	FOR i IN 1 .. 5 LOOP
		PERFORM taskshed.add_task('note', kwargs => jsonb_build_object('what', 'kept ' || i));
		COMMIT;
		PERFORM taskshed.add_task('note', kwargs => jsonb_build_object('what', 'never ' || i));
		ROLLBACK;
	END LOOP;
END $$});
$app->query('CALL commits()');
await(
	$node,
	q{SELECT count(*) = 5 FROM ledger WHERE what LIKE 'kept %'},
	'what it committed has run');
is(ledger('never%'), '0', 'what it rolled back has not');

# A change during a run loses only what it conflicts with: the run says how it
# went, and is one of those that the task may have, unless it would have been tried
# again.
$node->safe_psql(
	'postgres', q{
CREATE FUNCTION move_on(task_id text) RETURNS void LANGUAGE sql AS $$
	SELECT taskshed.update_execution_time(task_id, clock_timestamp());
	SELECT public.note('moves on');
$$;
CREATE FUNCTION move_later(task_id text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	PERFORM taskshed.update_execution_time(task_id, '2100-01-01');
	RAISE 'rolled back';
END $$;
CREATE FUNCTION fail_held(lock integer) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	PERFORM pg_advisory_xact_lock_shared(lock);
	RAISE 'on purpose';
END $$;
SELECT taskshed.add_task('move_on', kwargs => '{"task_id": "moves on"}', task_id => 'moves on',
	every => '1 day', max_runs => 3);
SELECT taskshed.add_task('move_on', kwargs => '{"task_id": "moves once"}', task_id => 'moves once', max_runs => 2);
SELECT taskshed.add_task('move_later', kwargs => '{"task_id": "fails"}', task_id => 'fails')}
);
await_no_task($node, 'moves %');
is(ledger('moves on'), '5', 'max_runs counts runs that move their task');
await_state($node, 'fails', 'failed');
is(plan_of($node, 'fails'),
	'failed|1|past|', 'a move that is rolled back leaves nothing');

my $locker = session($node);
$locker->query('SELECT pg_advisory_lock(77)');
$node->safe_psql(
	'postgres', q{
SELECT taskshed.add_task('hold', kwargs => '{"what": "moved once", "lock": 77}', task_id => 'moved once');
SELECT taskshed.add_task('hold', kwargs => '{"what": "last one", "lock": 77}', task_id => 'last one', every => '1 day', max_runs => 1);
SELECT taskshed.add_task('hold', kwargs => '{"what": "lowered", "lock": 77}', task_id => 'lowered', every => '1 day');
SELECT taskshed.add_task('fail_held', kwargs => '{"lock": 77}', task_id => 'moved failing', every => '1 day', max_attempts => 3);
SELECT taskshed.add_task('fail_held', kwargs => '{"lock": 77}', task_id => 'last failing', every => '1 day', max_runs => 1)}
);
await_blocked($node, 5, 77);
$node->safe_psql(
	'postgres', q{
SELECT taskshed.update_execution_time(id, '2100-01-01')
FROM unnest(ARRAY['moved once', 'last one', 'moved failing', 'last failing']) AS id;
SELECT taskshed.add_task('note', '2100-01-01', '{"what": "x"}', task_id => 'lowered', every => '1 day', max_runs => 1)}
);
$locker->query('SELECT pg_advisory_unlock(77)');
await(
	$node,
	q{SELECT count(*) = 5 FROM taskshed.runs WHERE task_id IN ('moved once', 'last one', 'lowered', 'moved failing', 'last failing')},
	'all are over');
await_calm($node);
is( $node->safe_psql(
		'postgres', q{
		SELECT task_id, state, run_count, last_status, last_error, failures_in_row, last_run_at IS NOT NULL,
			run_at = '2100-01-01'
		FROM taskshed.tasks WHERE task_id IN ('moved once', 'last one', 'lowered', 'moved failing', 'last failing')
		ORDER BY 1}
	),
	join("\n",
		'last failing|failed|1|failed|on purpose|1|t|t',
		'moved failing|scheduled|0|failed|on purpose|0|t|t',
		'moved once|scheduled|1|succeeded||0|t|t'),
	'who is moved while it runs tells of the run; one that had its last is over'
);
$locker->quit;
$node->safe_psql('postgres', 'SELECT taskshed.remove_all_tasks()');

# A callback that changes its task's rows by hand.
$node->safe_psql(
	'postgres', q{
CREATE FUNCTION by_hand() RETURNS void LANGUAGE sql AS $$
	UPDATE _taskshed.task SET group_id = 'by hand' WHERE task_id LIKE 'by hand%';
	UPDATE _taskshed.alarm SET previous_run_at = now() WHERE last_status IS NOT NULL;
	SELECT public.note('by hand');
$$;
SELECT taskshed.add_task('by_hand', task_id => 'by hand, once');
SELECT taskshed.add_task('by_hand', task_id => 'by hand, twice', every => '1 ms', max_runs => 2)}
);
await_no_task($node, 'by hand%');
is(ledger('by hand'), '3', 'each run has had its effect');

# What a run adds before a task that waits for it, too; one that recurs does not wait for one that runs once.
$node->safe_psql(
	'postgres', q{
CREATE FUNCTION finds(child text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	PERFORM taskshed.add_task('note', kwargs => '{"what": "found"}', before => array[child]) FROM generate_series(1, 3);
END $$});
as_app(
	q{
SELECT taskshed.add_task('finds', '2100-01-01', '{"child": "each night"}', every => '1 day', task_id => 'nightly');
SELECT taskshed.add_task('note', kwargs => '{"what": "each night"}', after => '{nightly}', task_id => 'each night');
SELECT taskshed.add_tasks('[{"callback": "finds", "task_id": "finds", "kwargs": {"child": "at last"}},
	{"callback": "note", "task_id": "at last", "after": ["finds"],
	"kwargs": {"what": "at last"}}]');
SELECT taskshed.run_task('nightly')});
await(
	$node,
	q{SELECT string_agg(what, ', ' ORDER BY started) = 'found, found, found, at last' FROM ledger WHERE what IN ('found', 'at last')},
	'the last one runs after those that were found');
await(
	$node,
	q{SELECT last_sqlstate = '22023' FROM taskshed.tasks WHERE task_id = 'nightly' AND state <> 'running'},
	'one that recurs is refused one that does not');
is( $node->safe_psql(
		'postgres',
		q{SELECT after, state FROM taskshed.tasks WHERE task_id = 'each night'}
	),
	'{nightly}|waiting',
	'and is as it was');

# A big transaction.
$app->query(
	q{BEGIN; SELECT count(taskshed.add_task('note', kwargs => jsonb_build_object('what', 'many ' || i))) FROM generate_series(1, 3000) i;
	SAVEPOINT s; SELECT count(taskshed.add_task('note', kwargs => '{"what": "never"}')) FROM generate_series(1, 300) i;
	ROLLBACK TO s; COMMIT});
await($node, q{SELECT count(*) >= 3000 FROM ledger WHERE what LIKE 'many %'},
	'all have run');
is( $node->safe_psql(
		'postgres',
		q{SELECT count(*), count(DISTINCT what) FROM ledger WHERE what LIKE 'many %'}
	),
	'3000|3000',
	'3000 of one transaction, each once');
is(ledger('never'), '0', 'and none that was rolled back');

$app->quit;
$node->stop;
done_testing();
