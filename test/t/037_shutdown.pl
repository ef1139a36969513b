
# Stopping the server: a fast stop ends whatever callbacks are doing, and does
# not wait for a synchronous standby that is away.  What was cut off is run
# again after the start, as if nothing had happened, and once.
#
# Quick: promises 2 and 3; restart

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use TaskshedTest;
use Test::More;

my $node = taskshed_node(
	'shutdown', conf => q{
taskshed.worker_idle_timeout = '1d'
wal_level = replica
max_wal_senders = 1
});

# Callbacks that do not end by themselves, until there is a row in "proceed".
$node->safe_psql(
	'postgres', q{
CREATE ROLE app LOGIN;
GRANT EXECUTE ON PROCEDURE taskshed.execute TO app;
CREATE TABLE proceed ();
CREATE TABLE pieces (what text);
GRANT ALL ON proceed, pieces TO PUBLIC;
CREATE FUNCTION may_proceed() RETURNS boolean LANGUAGE sql VOLATILE AS $$
	SELECT EXISTS (SELECT FROM public.proceed)
$$;

CREATE FUNCTION sleeps(what text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	PERFORM public.note(what);
	IF NOT public.may_proceed() THEN
		PERFORM pg_sleep(100000);
	END IF;
END $$;

CREATE FUNCTION loops(what text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	PERFORM public.note(what);
	IF NOT public.may_proceed() THEN
		LOOP
			NULL;
		END LOOP;
	END IF;
END $$;

CREATE FUNCTION swallows_others(what text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	PERFORM public.note(what);
	WHILE NOT public.may_proceed() LOOP
		BEGIN
			PERFORM pg_sleep(100000);
		EXCEPTION WHEN OTHERS THEN
			RAISE LOG 'swallowed: %', SQLERRM;
		END;
	END LOOP;
END $$;

CREATE FUNCTION swallows_cancel(what text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	PERFORM public.note(what);
	WHILE NOT public.may_proceed() LOOP
		BEGIN
			PERFORM pg_sleep(100000);
		EXCEPTION WHEN query_canceled OR admin_shutdown OR crash_shutdown THEN
			RAISE LOG 'swallowed: %', SQLERRM;
		END;
	END LOOP;
END $$;

CREATE FUNCTION locks(what text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	PERFORM public.note(what);
	LOCK TABLE public.pieces;
END $$;

-- What is left to its commit is cut off, too.
CREATE TABLE deferred (what text);
GRANT ALL ON deferred TO PUBLIC;
CREATE FUNCTION at_the_end() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	PERFORM public.sleeps(new.what);
	RETURN NULL;
END $$;
CREATE CONSTRAINT TRIGGER at_the_end AFTER INSERT ON deferred
DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION at_the_end();
CREATE FUNCTION defers(what text) RETURNS void LANGUAGE sql AS $$
	INSERT INTO public.deferred VALUES (what);
$$;

CREATE PROCEDURE commits(what text) LANGUAGE plpgsql AS $$
BEGIN
	LOOP
		INSERT INTO public.pieces VALUES (what);
		COMMIT;
		EXIT WHEN public.may_proceed();
		PERFORM pg_sleep(0.001);
	END LOOP;
	PERFORM public.note(what);
END $$;

CREATE FUNCTION fails_once(what text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	PERFORM public.note(what);
	IF (taskshed.current_task()).attempt = 1 THEN
		RAISE EXCEPTION 'not at first';
	END IF;
END $$;
});

# Stops the server.  It has to end by itself, however long that takes on a
# machine that is busy.
sub stops
{
	my ($mode, $what) = @_;
	my $timeout = $PostgreSQL::Test::Utils::timeout_default;
	my $rc      = system(
		'pg_ctl', '-D', $node->data_dir, '-m',
		$mode,    '-w', '-t',            $timeout,
		'-s',     'stop');

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	is($rc, 0, "a $mode stop ends $what");
	if ($rc != 0)
	{
		$node->stop('immediate');
		BAIL_OUT('no test after this one means anything');
	}
	$node->_update_pid(0);
	return;
}

# Has the server do that with what is running, starts it, and checks that each
# task of that name is then done once.
sub stop_and_start
{
	my ($what, $n) = @_;
	my $log = -s $node->logfile;

	stops('fast', $what);
	unlike(slurp_file($node->logfile, $log),
		qr/swallowed/, "$what: nobody could swallow that");
	$node->start;
	query('INSERT INTO proceed DEFAULT VALUES');

	# (what has been called before there was that row sleeps again)
	query(
		q{SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type = 'taskshed worker'}
	);
	await_no_task($node, "$what%");
	is( query(
			"SELECT count(*), count(DISTINCT what) FROM ledger WHERE what LIKE '$what%'"
		),
		"$n|$n",
		"$what: done once");
	is( query(
			"SELECT status, attempt FROM taskshed.runs WHERE task_id LIKE '$what%' AND status <> 'interrupted' GROUP BY 1, 2"
		),
		'succeeded|1',
		"$what: that has used no attempt");
	query('DELETE FROM proceed');
	return;
}

# Runs two of these, and waits until they are at it.
sub run_two
{
	my ($callback) = @_;

	query(
		qq{SELECT taskshed.add_task('$callback', kwargs => jsonb_build_object('what', '$callback ' || n),
			task_id => '$callback ' || n, owner => 'app', max_attempts => 2) FROM generate_series(1, 2) AS n}
	);
	await(
		$node,
		"SELECT count(*) = 2 FROM taskshed.tasks WHERE task_id LIKE '$callback %' AND state = 'running'",
		"$callback runs");
	return;
}

sub await_waiting
{
	my ($n, $event) = @_;

	return await(
		$node,
		qq{SELECT count(*) = $n FROM pg_stat_activity
		WHERE backend_type = 'taskshed worker' AND wait_event = '$event'},
		"$n workers are in $event");
}

foreach my $callback (qw(sleeps swallows_others swallows_cancel defers))
{
	run_two($callback);
	await_waiting(2, 'PgSleep');
	stop_and_start($callback, 2);
}
run_two('loops');
stop_and_start('loops', 2);

# It waits for a lock that somebody has.
my $locker = session($node);
$locker->query('BEGIN; LOCK TABLE pieces IN ACCESS EXCLUSIVE MODE');
run_two('locks');
await_waiting(2, 'relation');
stop_and_start('locks', 2);
eval { $locker->quit };

# A procedure between its commits: what it has committed stays.
run_two('commits');
await(
	$node,
	'SELECT count(*) > 10 FROM pieces',
	'the procedures have committed something');
stop_and_start('commits', 2);
cmp_ok(query('SELECT count(*) FROM pieces'),
	'>', 10, 'commits: what had been committed is there');

# A command at top level.
query(
	q{SELECT taskshed.add_task('taskshed.execute', kwargs => '{"command": "SELECT sleeps(''command'')"}',
		task_id => 'command', owner => 'app')});
await_waiting(1, 'PgSleep');
stop_and_start('command', 1);

# A run ends while somebody is changing its task: it waits for him.
my $changer = session($node);
my $holder  = session($node);
$holder->query('SELECT pg_advisory_lock(1)');
query(
	q{SELECT taskshed.add_task('hold', kwargs => '{"what": "outcome"}', task_id => 'outcome', owner => 'app')}
);
await_blocked($node, 1);
$changer->query(
	q{BEGIN; SELECT taskshed.pause_task('outcome', owner => 'app')});
$holder->query('SELECT pg_advisory_unlock(1)');
await_waiting(1, 'transactionid');
stop_and_start('outcome', 1);
eval { $_->quit } foreach ($changer, $holder);

# A retry that waits for its time goes on waiting, and comes.
query(
	q{SELECT taskshed.add_task('fails_once', kwargs => '{"what": "retried"}', task_id => 'retried',
		owner => 'app', max_attempts => 2, retry_delay => '1 day')});
await(
	$node,
	q{SELECT attempt = 1 AND state = 'scheduled' FROM taskshed.tasks WHERE task_id = 'retried'},
	'it waits for its second attempt');
stops('fast', 'a retry that waits');
$node->start;
is( query(
		q{SELECT attempt, state, run_at > now() + interval '20 hours' FROM taskshed.tasks WHERE task_id = 'retried'}
	),
	'1|scheduled|t',
	'a retry waits after the start as before');
query(
	q{SELECT taskshed.add_task('fails_once', kwargs => '{"what": "retried soon"}', task_id => 'retried soon',
		owner => 'app', max_attempts => 2, retry_delay => '2 s')});
await(
	$node,
	q{SELECT count(*) = 1 FROM taskshed.runs WHERE task_id = 'retried soon'},
	'it has failed once');
stops('fast', 'a retry that is soon');
$node->start;
await_no_task($node, 'retried soon');
is( query(
		q{SELECT string_agg(status || ' ' || attempt, ', ' ORDER BY finished_at, run_id) FROM taskshed.runs WHERE task_id = 'retried soon'}
	),
	'failed 1, succeeded 2',
	'a retry comes after the start');

# In the middle of many tasks that are due, the later ones of which do not end,
# and by a smart stop while workers are idle.
$holder = session($node);
$holder->query('SELECT pg_advisory_lock(1)');
query(
	q{
SELECT count(taskshed.add_task(CASE WHEN n > 10000 THEN 'hold' ELSE 'note' END,
	'2020-01-01'::timestamptz + n * interval '1 s', jsonb_build_object('what', 'late ' || n),
	task_id => 'late ' || n, owner => CASE n % 3 WHEN 0 THEN 'app' ELSE current_user END))
FROM generate_series(1, 20000) AS n});
await(
	$node,
	q{SELECT count(*) > 500 FROM ledger WHERE what LIKE 'late %'},
	'some of them have run');
stops('fast', 'a catch-up');
eval { $holder->quit };
$node->start;
is( query(
		q{SELECT count(*) BETWEEN 501 AND 10000 FROM ledger
		WHERE what LIKE 'late %' AND started < pg_postmaster_start_time()}
	),
	't',
	'it was in the middle');
await_no_task($node, 'late %');
is( query(
		q{SELECT split_part(what, ' ', 1), count(*), count(DISTINCT what)
		FROM ledger WHERE what LIKE 'late %' GROUP BY 1}
	),
	'late|20000|20000',
	'a catch-up that was cut off: nothing lost, nothing doubled');
await(
	$node,
	q{SELECT workers > 0 AND running = 0 FROM taskshed.status},
	'workers are idle');
stops('smart', 'idle workers');
$node->start;

# With a synchronous standby that is away.  What does not ask for it is not
# held up: by default a run does not.
$node->append_conf('postgresql.conf',
	"synchronous_standby_names = 'nobody'\nsynchronous_commit = local\n");
$node->reload;
await(
	$node,
	q{SELECT current_setting('synchronous_standby_names') = 'nobody'},
	'the server knows of its standby');
query(
	q{ALTER ROLE app SET synchronous_commit = on;
	SELECT taskshed.add_task('note', kwargs => '{"what": "asynchronous"}', task_id => 'asynchronous', owner => 'app')}
);
await_no_task($node, 'asynchronous');

# Others wait, and a stop ends that: these have committed.
foreach my $mode ('fast', 'smart')
{
	set_and_reload($node, 'taskshed.synchronous_commit' => 'remote_apply');
	await(
		$node,
		q{SELECT setting = 'remote_apply' FROM pg_settings WHERE name = 'taskshed.synchronous_commit'},
		'runs are to wait for the standby');
	query(
		qq{
	SELECT taskshed.add_task('note', '2020-01-01', jsonb_build_object('what', '$mode ' || n), task_id => '$mode ' || n,
		owner => CASE n % 2 WHEN 0 THEN 'app' ELSE current_user END) FROM generate_series(1, 100) AS n;
	SELECT taskshed.add_task('sleeps', '2020-01-01', '{"what": "$mode sleeps"}', task_id => '$mode sleeps');
	SELECT taskshed.add_task('note', '2020-01-01', '{"what": "$mode recurring"}', task_id => 'recurring $mode', every => '100 years')}
	);
	await(
		$node,
		q{SELECT count(*) >= 3 FROM pg_stat_activity WHERE backend_type = 'taskshed worker' AND wait_event = 'SyncRep'},
		'runs wait for the standby');
	stops($mode, 'runs that wait for a standby that is away');
	$node->append_conf('postgresql.conf', 'synchronous_standby_names = \'\'');
	query_after_start($mode);
}

# Checks what became of these tasks.
sub query_after_start
{
	my ($mode) = @_;

	$node->start;
	query('INSERT INTO proceed DEFAULT VALUES');
	query(
		q{SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type = 'taskshed worker'}
	);
	await_no_task($node, "$mode %");
	await(
		$node,
		"SELECT run_count = 1 FROM taskshed.tasks WHERE task_id = 'recurring $mode'",
		'a recurring one has run');
	is( query(
			"SELECT count(*), count(DISTINCT what) FROM ledger WHERE what LIKE '$mode %'"
		),
		'102|102',
		"$mode stop with a standby that is away: nothing lost, nothing doubled"
	);
	is( query(
			"SELECT DISTINCT status, attempt FROM taskshed.runs WHERE task_id LIKE '%$mode%' AND status <> 'interrupted'"
		),
		'succeeded|1',
		"$mode stop with a standby that is away: no attempt was used");
	query('DELETE FROM proceed');
	$node->append_conf('postgresql.conf',
		"synchronous_standby_names = 'nobody'");
	$node->reload;
	return;
}

$node->append_conf('postgresql.conf', 'synchronous_standby_names = \'\'');
$node->reload;
is(query(q{SELECT what FROM ledger GROUP BY 1 HAVING count(*) > 1}),
	'', 'nothing was done twice');
is(query(q{SELECT count(*) FROM taskshed.tasks WHERE state = 'failed'}),
	0, 'nothing has failed');
unlike(slurp_file($node->logfile), qr/PANIC|TRAP/, 'no panic');
$node->stop;
done_testing();
