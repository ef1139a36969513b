
# request_run(): whoever asks for a run of a task waits for nobody, and after the commit the task runs,
# once for many, and once more if it was running already.  Nothing that was asked for is lost, whatever
# happens to the server.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use TaskshedTest;
use Test::More;

my $node = taskshed_node(
	'asked',
	conf => q{
max_prepared_transactions = 20
autovacuum = off
taskshed.max_interruptions = 1000
});

query(
	q{
	CREATE ROLE app LOGIN;
	CREATE ROLE other LOGIN;
	CREATE TABLE source (n int);
	CREATE TABLE seen (what text, n int, at timestamptz DEFAULT clock_timestamp());
	GRANT ALL ON source, seen TO app, other;
	SET ROLE app;
	CREATE FUNCTION look(what text DEFAULT 'refresh') RETURNS void LANGUAGE plpgsql AS $$ BEGIN
		PERFORM pg_advisory_xact_lock_shared(1);
		INSERT INTO public.seen SELECT what, count(*) FROM public.source; END $$;
	CREATE FUNCTION look_and_wait(what text) RETURNS void LANGUAGE plpgsql AS $$ BEGIN
		INSERT INTO public.seen SELECT what, count(*) FROM public.source;
		PERFORM pg_advisory_xact_lock_shared(1); END $$;
	CREATE FUNCTION fail_at_first(what text) RETURNS void LANGUAGE plpgsql AS $$ BEGIN
		IF (SELECT attempt = 1 FROM taskshed.current_task()) THEN RAISE EXCEPTION 'not yet'; END IF;
		INSERT INTO public.seen SELECT what, count(*) FROM public.source; END $$;
	CREATE FUNCTION ask() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$ BEGIN
		PERFORM taskshed.request_run('refresh'); RETURN NULL; END $$});

# How often a task has looked.
sub looks
{
	my ($what) = @_;

	return query("SELECT count(*) FROM seen WHERE what = '$what'");
}

sub await_looks
{
	my ($what, $n) = @_;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	return await(
		$node,
		"SELECT count(*) = $n FROM seen WHERE what = '$what'",
		"$what has looked $n times");
}

# Waits until all requests are settled, and nothing is due or runs.
sub await_settled
{
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	await(
		$node,
		'SELECT NOT EXISTS (SELECT FROM _taskshed.request)',
		'all requests are settled');
	return await_calm($node);
}

sub lasting
{
	my ($task_id, $callback, $more) = @_;

	$callback = 'look' unless defined $callback;
	$more     = ''     unless defined $more;
	return app(
		qq{add_task('$callback', run_type => 'recurring', task_id => '$task_id', kwargs => '{"what": "$task_id"}'$more)}
	);
}

# A session of the role app in a transaction that has asked for a task.
sub asking
{
	my ($task_id) = @_;
	my $session = session($node);

	$session->safe_query('SET ROLE app; BEGIN');
	is($session->safe_query("SELECT taskshed.request_run('$task_id')"),
		't', "$task_id is asked for");
	return $session;
}

# ------------------------------------------------------------------------
# One task, one request

lasting('refresh');
is( query(
		q{SELECT state, run_at IS NULL FROM taskshed.tasks WHERE task_id = 'refresh'}
	),
	'waiting|t',
	'it waits to be asked for');
is(app(q{request_run('refresh')}), 't', 'it is asked for');
await_looks('refresh', 1);
await_state($node, 'refresh', 'waiting');
is( query(
		q{SELECT status, by_hand, attempt FROM taskshed.runs WHERE task_id = 'refresh'}
	),
	'succeeded|f|1',
	'it has run, and waits again');
is(app(q{request_run('nobody')}),         'f', 'there is no such task');
is(app(q{request_run(NULL)}),             'f', 'nor one without a name');
is(app(q{request_run('refresh', 'app')}), 't', 'one of a role');
await_looks('refresh', 2);
is( psql_as($node, 'other', q{SELECT taskshed.request_run('refresh', 'app')}),
	'42501',
	'not by others');
is(psql_as($node, 'other', q{SELECT taskshed.request_run('refresh')}),
	'f', 'they have no such task');
is( query(
		q{BEGIN READ ONLY; SELECT has_function_privilege('other', 'taskshed.request_run(text, name)', 'EXECUTE'); COMMIT}
	),
	't',
	'who may call it');
is( psql_as(
		$node, 'app',
		q{BEGIN READ ONLY; SELECT taskshed.request_run('refresh')}),
	'25006',
	'not in a transaction that is read-only');

# ------------------------------------------------------------------------
# A rollback, savepoints, and one row for a transaction

query(
	q{SET ROLE app; BEGIN; SELECT taskshed.request_run('refresh'); ROLLBACK});
query(
	q{SET ROLE app; BEGIN; SAVEPOINT a; SELECT taskshed.request_run('refresh'); ROLLBACK TO a; COMMIT}
);
await_settled();
is(looks('refresh'), '2', 'what was rolled back was not asked for');
my $session = session($node);
$session->safe_query(
	q{SET ROLE app; BEGIN; SAVEPOINT a; SELECT taskshed.request_run('refresh') FROM generate_series(1, 1000);
	SAVEPOINT b; SELECT taskshed.request_run('refresh'); RELEASE b; SELECT taskshed.request_run('refresh'); RESET ROLE}
);
is($session->safe_query('SELECT count(*) FROM _taskshed.request'),
	'1', 'one row for a transaction');
$session->safe_query(
	q{ROLLBACK TO a; SET ROLE app; SELECT taskshed.request_run('refresh'); RESET ROLE}
);
is($session->safe_query('SELECT count(*) FROM _taskshed.request'),
	'1', 'and another when that was rolled back');
$session->safe_query('COMMIT');
await_looks('refresh', 3);
await_settled();
is(looks('refresh'), '3', 'one run');

# A task that is added in the same transaction
query(
	q{SET ROLE app; BEGIN; SELECT taskshed.add_task('look', run_type => 'recurring', task_id => 'new', kwargs => '{"what": "new"}');
	SELECT taskshed.request_run('new'); COMMIT});
await_looks('new', 1);

# ------------------------------------------------------------------------
# Triggers of many sessions, one of which stays open: nobody waits, and each burst has a run that has
# seen all of it

query(
	q{CREATE TRIGGER ask AFTER INSERT ON source FOR EACH ROW EXECUTE FUNCTION ask()}
);
my $open     = asking('refresh');
my @sessions = map { session($node) } 1 .. 15;
foreach my $burst (1 .. 5)
{
	my $from = query(q{SELECT count(*) FROM seen WHERE what = 'refresh'});

	# (none begins before all have asked)
	my $gate = session($node);

	$gate->safe_query('BEGIN; SELECT pg_advisory_xact_lock(1)');
	foreach my $each (@sessions)
	{
		$each->send(
			qq{INSERT INTO source SELECT $burst FROM generate_series(1, 10)});
	}
	$_->result foreach @sessions;
	$gate->safe_query('COMMIT');
	$gate->quit;
	await(
		$node,
		qq{SELECT max(n) = $burst * 150 FROM seen WHERE what = 'refresh'},
		"burst $burst was seen");
	await_settled();
	cmp_ok(looks('refresh') - $from,
		'<=', 2, "burst $burst has one run, and one that had begun");
}
is(query(q{SELECT max(n) FROM seen}), '750', 'nobody has waited');
my $before = looks('refresh');
$open->safe_query('INSERT INTO public.source VALUES (0); COMMIT');
await(
	$node,
	q{SELECT max(n) = 751 FROM seen WHERE what = 'refresh'},
	'the one that stayed open has a run, too');
await_settled();
is(looks('refresh') - $before, '1', 'one run');
$_->quit foreach @sessions;
query('DROP TRIGGER ask ON source');

# ------------------------------------------------------------------------
# While it runs: one more follows

sub during
{
	my ($task_id, $what, $from) = @_;
	my $gate = session($node);

	$from = looks($task_id) unless defined $from;
	$gate->safe_query('BEGIN; SELECT pg_advisory_xact_lock(1)');
	app("request_run('$task_id')");
	await_blocked($node, 1);
	query('INSERT INTO source VALUES (1)');
	app("request_run('$task_id')") foreach 1 .. 3;
	await(
		$node,
		'SELECT NOT EXISTS (SELECT FROM _taskshed.request)',
		'the requests are settled while it runs');
	$gate->safe_query('COMMIT');
	$gate->quit;
	await_looks($task_id, $from + 2);
	await_settled();
	is(looks($task_id), $from + 2, "$what: one more run");
	return is(
		query(
			qq{SELECT n = (SELECT count(*) FROM source) FROM seen WHERE what = '$task_id' ORDER BY at DESC LIMIT 1}
		),
		't',
		"$what: it has seen all");
}

lasting('slow', 'look_and_wait');
during('slow', 'a lasting task');
await_state($node, 'slow', 'waiting');
app(q{add_task('look_and_wait', run_at => now() + interval '1 year', task_id => 'later', kwargs => '{"what": "later"}')}
);
during('later', 'a one-off task that waits for its time');
is( query(
		q{SELECT state, run_at > now() + interval '300 days' FROM taskshed.tasks WHERE task_id = 'later'}
	),
	'scheduled|t',
	'it waits for its time yet');
app(q{add_task('look_and_wait', schedule => '@yearly', task_id => 'yearly', kwargs => '{"what": "yearly"}')}
);
during('yearly', 'a task with a schedule');
is( query(
		q{SELECT state, run_at > now() FROM taskshed.tasks WHERE task_id = 'yearly'}
	),
	'scheduled|t',
	'its schedule is as it was');

# The run of a one-off task is followed, too, before the task goes.
my $gate = session($node);
$gate->safe_query('BEGIN; SELECT pg_advisory_xact_lock(1)');
app(q{add_task('look_and_wait', task_id => 'once', kwargs => '{"what": "once"}')}
);
await_blocked($node, 1);
app(q{request_run('once')});
await(
	$node,
	'SELECT NOT EXISTS (SELECT FROM _taskshed.request)',
	'the request is settled');
$gate->safe_query('COMMIT');
await_no_task($node, 'once');
is(looks('once'), '2', 'a one-off task runs once more');

# Replaced, and changed, while it is asked for
$gate->safe_query('BEGIN; SELECT pg_advisory_xact_lock(1)');
app(q{request_run('slow')});
await_blocked($node, 1);
my $n = looks('slow');
app(q{request_run('slow')});
await(
	$node,
	'SELECT NOT EXISTS (SELECT FROM _taskshed.request)',
	'the request is settled');
lasting('slow', 'look_and_wait', q{, description => 'the same with a note'});
lasting('slow', 'look_and_wait');
query(
	q{SELECT taskshed.update_tasks('{"timeout": "1 hour"}', '{slow}', owner => 'app')}
);
$gate->safe_query('COMMIT');
await_looks('slow', $n + 2);
await_settled();
is(looks('slow'), $n + 2, 'a deploy while it runs loses nothing');

# due and replaced as it is
app(q{pause_task('slow')});
app(q{request_run('slow')});
await(
	$node,
	'SELECT NOT EXISTS (SELECT FROM _taskshed.request)',
	'the request is settled');
lasting('slow', 'look_and_wait');
lasting('slow', 'look_and_wait', q{, description => 'changed'});
is(looks('slow'), $n + 2, 'it is paused');
app(q{resume_task('slow')});
await_looks('slow', $n + 3);
await_settled();
is(looks('slow'), $n + 3,
	'a deploy while it is due and paused loses nothing');

# an attempt that fails, and is tried again
lasting('again', 'fail_at_first', q{, max_attempts => 2, retry_delay => '0'});
app(q{request_run('again')});
await_looks('again', 1);
await_settled();
is(runs_of($node, 'again'), 'failed 1, succeeded 2', 'it has its attempts');

# failed, and cancelled
app(q{add_task('look', task_id => 'failed', kwargs => '{"what": "failed"}', run_at => now() + interval '1 year')}
);
query(
	q{UPDATE _taskshed.alarm SET failed_at = now() WHERE id = (SELECT id FROM _taskshed.task WHERE task_id = 'failed')}
);
app(q{request_run('failed')});
await_looks('failed', 1);
await_state($node, 'failed', 'failed');
$gate->safe_query('BEGIN; SELECT pg_advisory_xact_lock(1)');
$n = looks('slow');
app(q{request_run('slow')});
await_blocked($node, 1);
app(q{request_run('slow')});
await(
	$node,
	'SELECT NOT EXISTS (SELECT FROM _taskshed.request)',
	'the request is settled');
app(q{cancel_task('slow')});
await(
	$node,
	q{SELECT count(*) = 1 FROM taskshed.runs WHERE task_id = 'slow' AND status = 'cancelled'},
	'its run is cancelled');
$gate->safe_query('COMMIT');
await_looks('slow', $n + 1);
await_settled();

# what runs after it
app(q{add_task('look', after => '{again}', task_id => 'behind', kwargs => '{"what": "behind"}', after_status => 'ended')}
);
is( query(
		q{SELECT run_type, state FROM taskshed.tasks WHERE task_id = 'behind'}
	),
	'recurring|waiting',
	'a task that runs after it recurs');
app(q{request_run('again')});
await_looks('behind', 1);
app(q{request_run('behind')});
await_looks('behind', 2);
await_state($node, 'behind', 'waiting');

# ------------------------------------------------------------------------
# Somebody has locked the task: who asks does not wait, nor does anybody else's task

my $locker = session($node);
$locker->safe_query(
	q{SET ROLE app; BEGIN; SELECT taskshed.update_tasks('{"description": "locked"}', '{slow}')}
);
$n = looks('slow');
my $m = looks('refresh');
app(q{request_run('slow')});
app(q{request_run('refresh')});
await_looks('refresh', $m + 1);
app(q{request_run('refresh')}), await_looks('refresh', $m + 2);
is(looks('slow'), $n, 'one that is locked waits');
$locker->safe_query('COMMIT');
await_looks('slow', $n + 1);
$locker->safe_query(
	q{BEGIN; SELECT taskshed.request_run('slow'); SELECT taskshed.pause_task('slow'); SELECT taskshed.resume_task('slow'); COMMIT}
);
await_looks('slow', $n + 2);

# removed
$open = asking('gone') if lasting('gone');
app(q{remove_task('gone')});
$open->safe_query('COMMIT');
await_settled();
is(looks('gone'), '0', 'the row of a task that is gone is dropped');

# given to somebody else meanwhile
lasting('given', 'note');
$open = asking('given');
query(q{SELECT taskshed.set_owner('other', '{given}', owner => 'app')});
$open->safe_query('COMMIT');
await(
	$node,
	q{SELECT count(*) = 1 FROM ledger WHERE what = 'given' AND who = 'other/other'},
	'it runs as its new owner');

# ------------------------------------------------------------------------
# Two-phase commit; many tasks; the ring of notes overflows

$n = looks('refresh');
query(
	q{BEGIN; SELECT taskshed.request_run('refresh', 'app'); PREPARE TRANSACTION 'one'}
);
query(
	q{BEGIN; SELECT taskshed.request_run('refresh', 'app'); PREPARE TRANSACTION 'back'}
);
query(q{ROLLBACK PREPARED 'back'});
is(looks('refresh'), $n, 'nothing is prepared only');
query(q{COMMIT PREPARED 'one'});
await_looks('refresh', $n + 1);
query(
	q{SET ROLE app; SELECT count(taskshed.add_task('look', run_type => 'recurring', task_id => 'many ' || i, kwargs => jsonb_build_object('what', 'many ' || i)))
	FROM generate_series(1, 3000) i});

sub ask_many
{
	my ($to, $how) = @_;
	my $from = query(q{SELECT count(*) FROM seen WHERE what LIKE 'many %'});

	query(
		"BEGIN; SELECT count(taskshed.request_run('many ' || i, 'app')) FROM generate_series(1, $to) i; $how"
	);
	await(
		$node,
		qq{SELECT count(*) = $from + $to FROM seen WHERE what LIKE 'many %'},
		"$to have run");
	return await_settled();
}
ask_many(8,    q{PREPARE TRANSACTION 'few'; COMMIT PREPARED 'few'});
ask_many(20,   q{PREPARE TRANSACTION 'more'; COMMIT PREPARED 'more'});
ask_many(20,   'COMMIT');
ask_many(3000, 'COMMIT');
query(
	q{DO $$ BEGIN FOR i IN 1 .. 3000 LOOP PERFORM taskshed.request_run('many ' || i, 'app'); COMMIT; END LOOP; END $$}
);
await(
	$node,
	q{SELECT count(*) = 3000 FROM (SELECT FROM seen WHERE what LIKE 'many %' GROUP BY what HAVING count(*) >= 2) x},
	'each of many commits has had its run');
await_settled();
is( query(
		q{SELECT count(*) FROM taskshed.tasks WHERE task_id LIKE 'many %' AND state <> 'waiting'}
	),
	'0',
	'and all wait again');
query(q{SELECT taskshed.remove_all_tasks('app')}), lasting('refresh');

# ------------------------------------------------------------------------
# A crash, between the commit and the run, and during the run

$gate->safe_query('BEGIN; SELECT pg_advisory_xact_lock(1)');
lasting('slow', 'look_and_wait');
app(q{request_run('slow')});
await_blocked($node, 1);
$n    = looks('refresh');
$m    = looks('slow');
$open = session($node);
$open->safe_query(
	q{SET ROLE app; SELECT taskshed.request_run('slow'); SELECT taskshed.request_run('refresh')}
);
$node->stop('immediate');
$node->start;
await_looks('refresh', $n + 1);
await(
	$node,
	qq{SELECT count(*) BETWEEN $m + 1 AND $m + 2 FROM seen WHERE what = 'slow'},
	'what was running runs');
await_settled();
is( query(
		q{SELECT string_agg(state, ' ') FROM taskshed.tasks WHERE task_id IN ('slow', 'refresh')}
	),
	'waiting waiting',
	'both wait again');

# Faults all the time, and what was asked for last is always seen
query('TRUNCATE seen, source');
foreach my $round (1 .. 4)
{
	foreach my $i (1 .. 20)
	{
		app(q{request_run('refresh')})
		  if query('INSERT INTO source VALUES (1) RETURNING true');
		query(
			q{SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type IN ('taskshed scheduler', 'taskshed worker')}
		) if $i % 7 == 0;
	}
	$node->stop('immediate'), $node->start if $round % 2 == 0;
	await(
		$node,
		qq{SELECT max(n) = $round * 20 FROM seen},
		"round $round was seen");
}
await_settled();

# ------------------------------------------------------------------------
# Without a scheduler: asleep; disabled; a copy; and the extension is dropped

set_and_reload($node, 'taskshed.scheduler_idle_timeout' => '1s');
await(
	$node,
	q{SELECT state = 'asleep' FROM taskshed.status WHERE database = 'postgres'},
	'the scheduler is away');
$n = looks('refresh');
app(q{request_run('refresh')});
await_looks('refresh', $n + 1);
set_and_reload($node, 'taskshed.scheduler_idle_timeout' => undef);

set_and_reload($node, 'taskshed.enabled' => 'off');
$session = session($node);
like(
	$session->query(
		q{SET ROLE app; BEGIN; SELECT taskshed.request_run('refresh'); SELECT taskshed.request_run('refresh'); COMMIT}
	),
	qr/\At\nt\n[^\n]*NOTICE:  no run of task "refresh" is asked for, because tasks do not run here\nDETAIL:  taskshed is disabled\.\z/,
	'while it is disabled nobody can ask');
is(query('SELECT count(*) FROM _taskshed.request'), '0', 'no row is left');
set_and_reload($node, 'taskshed.enabled' => undef);

lasting('paused', 'note', ', paused => true');
query(
	q{SET ROLE app; SELECT taskshed.add_task('note', run_type => 'recurring', task_id => 'copied', kwargs => '{"what": "copied"}');
	SELECT taskshed.add_task('note', after => '{copied}', task_id => 'after copied', kwargs => '{"what": "after copied"}')}
);
await_settled();
$session->quit, $gate->quit, $locker->quit, $open->quit;
query('CREATE DATABASE copy TEMPLATE postgres');
await_status($node, 'copy', 'held');
$session = session($node, 'copy');
like(
	$session->query(q{SET ROLE app; SELECT taskshed.request_run('copied')}),
	qr/\At\n[^\n]*NOTICE:  no run of task "copied" is asked for/,
	'nor where tasks are held');
is($session->query(q{RESET ROLE; SELECT count(*) FROM _taskshed.request}),
	'0', 'no row is left there');
$session->safe_query('SELECT taskshed.activate()');
await_effects($node, 'copied',       1, 'copy');
await_effects($node, 'after copied', 1, 'copy');
await(
	$node,
	q{SELECT bool_and(state = 'waiting') FROM taskshed.tasks WHERE task_id IN ('copied', 'after copied', 'refresh')},
	'when it is activated all that can be asked for runs once',
	'copy');
is( $session->query(
		q{SELECT state, run_at IS NOT NULL FROM taskshed.tasks WHERE task_id = 'paused'}
	),
	'paused|t',
	'one that is paused when it is resumed');
$session->safe_query(q{SELECT taskshed.resume_task('paused', 'app')});
await_effects($node, 'paused', 1, 'copy');
is(effects_of($node, 'copied'), '0', 'nothing has run where it came from');

# A dump has no requests.
$session->safe_query(q{BEGIN; SELECT taskshed.request_run('copied', 'app')});
my $dump = $node->basedir . '/dump';
$node->command_ok(
	[ 'pg_dump', '--format=custom', '--file', $dump, $node->connstr('copy') ],
	'dumped');
query('CREATE DATABASE restored');
$node->command_ok(
	[
		'pg_restore', '--exit-on-error',
		'--dbname',   $node->connstr('restored'),
		$dump
	],
	'restored');
$session->safe_query('ROLLBACK; DROP EXTENSION taskshed');
$session->quit;
await_status($node, 'restored', 'held');
query('TRUNCATE ledger',            'restored');
query('SELECT taskshed.activate()', 'restored');
await_effects($node, 'copied', 1, 'restored');
is(query('SELECT count(*) FROM _taskshed.request', 'restored'),
	'0', 'no request was dumped');

# a template
query(q{ALTER DATABASE restored IS_TEMPLATE true});
$session = session($node, 'restored');
like(
	$session->query(q{SELECT taskshed.request_run('copied', 'app')}),
	qr/Database "restored" is a template\./,
	'nor in a template');
$session->quit;

# An open transaction that has asked does not keep the extension.
$open = asking('refresh');
my $drop = session($node);
$drop->send('DROP EXTENSION taskshed');
await(
	$node,
	q{SELECT count(*) > 0 FROM pg_locks WHERE NOT granted},
	'the drop waits');
$open->safe_query('COMMIT');
is($drop->result, '', 'the extension is dropped behind one who asks');
$drop->quit, $open->quit;
no_crash($node);
$node->stop;
done_testing();
