
# Callbacks that do the worst: kill their own process, crash the server, exit,
# loop without listening, eat memory, leak it, hold their transaction.  Each has 1,000
# harmless tasks beside it, which all finish, once; the culprit ends as failed
# after taskshed.max_interruptions runs, or when its time is over.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use TaskshedFaults;
use TaskshedTest;
use Test::More;

my $node = taskshed_node(
	'bad_citizens', conf => q{
restart_after_crash = on
taskshed.max_interruptions = 3
});

$node->safe_psql(
	'postgres', q{
CREATE ROLE app LOGIN;
CREATE FUNCTION brief(what text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	PERFORM public.note(what);
	PERFORM pg_sleep(0.002);
END $$;

-- A shell kills the process that called it.
CREATE FUNCTION kill_me(signal text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	CREATE TEMP TABLE nothing (line text);
	EXECUTE format('COPY nothing FROM PROGRAM %L', 'kill -' || signal || ' ' || pg_backend_pid());
	PERFORM pg_sleep(600);
END $$;

-- Ends its process properly.
CREATE FUNCTION terminate_me() RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	PERFORM pg_terminate_backend(pg_backend_pid());
	PERFORM pg_sleep(600);
END $$;

-- Has a run after one that was interrupted, and then none.
CREATE SEQUENCE lives;
GRANT ALL ON lives TO PUBLIC;
CREATE FUNCTION terminate_me_twice() RETURNS integer LANGUAGE plpgsql AS $$
BEGIN
	IF nextval('public.lives') <= 2 THEN
		PERFORM pg_terminate_backend(pg_backend_pid());
		PERFORM pg_sleep(600);
	END IF;
	RETURN (taskshed.current_task()).attempt;
END $$;

CREATE FUNCTION eat() RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
	eaten text[];
BEGIN
	LOOP
		eaten := array_append(eaten, repeat(md5(random()::text), 1000000));
	END LOOP;
END $$;

CREATE FUNCTION recurse(n integer DEFAULT 0) RETURNS integer LANGUAGE plpgsql AS $$
BEGIN
	RETURN public.recurse(n + 1) + 1;
END $$;

CREATE FUNCTION loop() RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	LOOP
		NULL;
	END LOOP;
END $$;
});

# 1,000 tasks over the next two seconds, half of them of the culprits' role;
# and what is to be added with them, in the same transaction, since the server
# may go down at once.
sub add_harmless
{
	my ($what, $culprits) = @_;

	$culprits = '' unless defined $culprits;
	$node->safe_psql(
		'postgres', qq{
		BEGIN;
		SELECT count(taskshed.add_task('brief', clock_timestamp() + i * interval '2 ms',
			kwargs => jsonb_build_object('what', '$what ' || i), task_id => '$what ' || i,
			owner => CASE WHEN i % 2 = 0 THEN 'app' ELSE current_user END))
		FROM generate_series(1, 1000) AS i;
		$culprits;
		COMMIT});
	return;
}

sub harmless_are_done
{
	my ($what) = @_;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	await_no_task($node, "$what %");
	is( $node->safe_psql(
			'postgres',
			"SELECT count(*), count(DISTINCT what) FROM ledger WHERE what LIKE '$what %'"
		),
		'1000|1000',
		"$what: all others have run, once");
	return;
}

sub task
{
	my ($task_id) = @_;
	return $node->safe_psql('postgres',
		qq{SELECT state, attempt, last_status, last_sqlstate FROM taskshed.tasks WHERE task_id = '$task_id'}
	);
}

# The culprit, among the others; and how long it and they took.
sub bad_citizen
{
	my ($what, $call) = @_;

	add_harmless($what, "SELECT taskshed.$call");
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	TaskshedFaults::await_through_crashes($node,
		"state = 'failed' FROM taskshed.tasks WHERE task_id = '$what'");
	harmless_are_done($what);
	diag(
		"$what: the culprit had failed after " . $node->safe_psql(
			'postgres', qq{
			SELECT format('%s, the others had run after %s',
				(SELECT max(finished_at) FROM taskshed.runs WHERE task_id = '$what') - created_at,
				(SELECT max(finished_at) FROM taskshed.runs WHERE task_id LIKE '$what %') - created_at)
			FROM taskshed.tasks WHERE task_id = '$what'}));
	return;
}

# It kills the server.
foreach my $signal ('KILL', 'SEGV', 'ABRT')
{
	my $what = "kill -$signal";

	bad_citizen($what,
		qq{add_task('kill_me', kwargs => '{"signal": "$signal"}', task_id => '$what', max_attempts => 2)}
	);
	is(task($what), 'failed|0|interrupted|57P01', "$what: failed");
	is( runs_of($node, $what),
		'interrupted 1, interrupted 1, interrupted 1',
		"$what: after so many runs");
	like(
		$node->safe_psql(
			'postgres',
			"SELECT last_error FROM taskshed.tasks WHERE task_id = '$what'"),
		qr/^3 runs in a row were interrupted/,
		"$what: and that is its error");
}

# Beside others that do the same: each has its own count.
my $log = -s $node->logfile;
add_harmless(
	'among a gang', q{
	SELECT taskshed.add_task('kill_me', kwargs => '{"signal": "KILL"}', task_id => 'gang ' || i)
	FROM generate_series(1, 3) AS i});
TaskshedFaults::await_through_crashes($node,
	q{count(*) = 3 FROM taskshed.tasks WHERE task_id LIKE 'gang %' AND state = 'failed'}
);
harmless_are_done('among a gang');
is( $node->safe_psql(
		'postgres', q{
		SELECT DISTINCT count(*) FILTER (WHERE status = 'interrupted'), count(*)
		FROM taskshed.runs WHERE task_id LIKE 'gang %' GROUP BY task_id}),
	'3|3',
	'each after so many runs');
my $crashes =
  count_in_log($node, qr/all server processes terminated; reinitializing/,
	$log);
cmp_ok($crashes, '<=', 9, "the server was restarted $crashes times");

# One that was beside a culprit is not taken for one.
is( $node->safe_psql(
		'postgres', q{
		SELECT task_id FROM taskshed.tasks WHERE state = 'failed'
			AND task_id NOT LIKE 'kill -%' AND task_id NOT LIKE 'gang _'}),
	'',
	'no innocent task has failed');

# A failed culprit has another chance if somebody wants that, and a recurring
# one ends in the same way.
$node->safe_psql('postgres', q{SELECT taskshed.retry_task('kill -KILL')});
TaskshedFaults::await_through_crashes($node,
	q{count(*) = 6 FROM taskshed.runs WHERE task_id = 'kill -KILL'});
TaskshedFaults::await_through_crashes($node,
	q{state = 'failed' FROM taskshed.tasks WHERE task_id = 'kill -KILL'});
bad_citizen('daily',
	q{add_task('kill_me', '2020-01-01', '{"signal": "KILL"}', every => '1 day', task_id => 'daily')}
);
is( runs_of($node, 'daily'),
	'interrupted 1, interrupted 1, interrupted 1',
	'a recurring culprit has failed, too');

# After a restart there is no memory of it: it stays failed and no harm comes
# of it.
$node->restart;
add_harmless('restarted');
harmless_are_done('restarted');
is( $node->safe_psql(
		'postgres', q{SELECT DISTINCT state FROM taskshed.tasks}),
	'failed',
	'they all stay failed');

# Its process only.
bad_citizen('terminate',
	q{add_task('terminate_me', task_id => 'terminate', max_attempts => 2, owner => 'app')}
);
is( runs_of($node, 'terminate'),
	'interrupted 1, interrupted 1, interrupted 1',
	'a callback that terminates its worker has failed after so many runs');
$node->safe_psql('postgres',
	q{SELECT taskshed.add_task('terminate_me_twice', task_id => 'twice', owner => 'app')}
);
await_no_task($node, 'twice');
is( runs_of($node, 'twice'),
	'interrupted 1, interrupted 1, succeeded 1',
	'interruptions use no attempt');

# Memory and stack: an error like any other.
SKIP:
{
	my $limit = 2_000_000;

	skip 'no ulimit', 4
	  if system("sh -c 'ulimit -v $limit' 2>/dev/null") != 0;
	$node->stop;
	my $start =
		"ulimit -v $limit; exec pg_ctl -w -D '"
	  . $node->data_dir
	  . "' -l '"
	  . $node->logfile
	  . "' start";
	is(system('sh', '-c', $start), 0, 'started with less memory');
	$node->_update_pid(1);

	# That the server has no memory is not known to be its fault, for an hour.
	add_harmless('eat',
		q{SELECT taskshed.add_task('eat', task_id => 'eat', timeout => '2 min', owner => 'app')}
	);
	harmless_are_done('eat');
	await(
		$node,
		q{SELECT last_status = 'failed' FROM taskshed.tasks WHERE task_id = 'eat'},
		'its run has failed');
	$node->safe_psql('postgres',
		q{UPDATE _taskshed.alarm SET shortage_since = shortage_since - interval '1 hour' WHERE shortage_since IS NOT NULL}
	);
	await_state($node, 'eat', 'failed');
	like(
		task('eat') . ' ' . runs_of($node, 'eat'),
		qr/^failed\|1\|failed\|(53200 failed 1(, failed 1)+|54000 failed 1)$/,
		'out of memory is an error of the run');
	$node->restart;
}
bad_citizen('recurse',
	q{add_task('recurse', task_id => 'recurse', owner => 'app')});
is( task('recurse') . ' ' . runs_of($node, 'recurse'),
	'failed|1|failed|54001 failed 1',
	'so is a stack that is too deep');

# Time.
bad_citizen('loop',
	q{add_task('loop', task_id => 'loop', timeout => '1 s', owner => 'app')});
is(runs_of($node, 'loop'), 'timeout 1', 'a loop is ended by its timeout');

# Its transaction.
my $holder = session($node);
$holder->query('SELECT pg_advisory_lock(7)');
$node->safe_psql('postgres',
	q{SELECT taskshed.add_task('hold', kwargs => '{"what": "held", "lock": 7}', task_id => 'hold', owner => 'app')}
);
await_blocked($node, 1, 7);
add_harmless('hold');
harmless_are_done('hold');
$holder->query('SELECT pg_advisory_unlock(7)');
await_no_task($node, 'hold');
$holder->quit;

# What only C can do.
SKIP:
{
	my $library = "$PostgreSQL::Test::Utils::tmp_check/bad_citizens.so";
	my $include = `pg_config --includedir-server`;
	my $source  = "$FindBin::RealBin/../modules/bad_citizens.c";
	my $file    = "$PostgreSQL::Test::Utils::tmp_check/go_on";

	chomp $include;
	skip 'no C compiler', 1
	  if system("cc -shared -fPIC -I'$include' -o '$library' '$source'") != 0;
	$node->safe_psql(
		'postgres', qq{
		CREATE FUNCTION bad_segfault() RETURNS void LANGUAGE c AS '$library';
		CREATE FUNCTION bad_underscore_exit(code integer) RETURNS void LANGUAGE c AS '$library';
		CREATE FUNCTION bad_exit(code integer) RETURNS void LANGUAGE c AS '$library';
		CREATE FUNCTION bad_loop(file text) RETURNS void LANGUAGE c AS '$library';
		CREATE FUNCTION bad_leak(mb integer) RETURNS void LANGUAGE c AS '$library';
		CREATE FUNCTION leak(what text) RETURNS void LANGUAGE plpgsql AS \$\$
		BEGIN
			PERFORM public.bad_leak(1);
			PERFORM public.note(what);
		END \$\$});

	# One that leaks memory has its worker replaced, again and again: at once,
	# and nothing of what that one was to do next is lost, doubled or blamed.
	add_harmless(
		'leak',
		q{SELECT count(taskshed.add_task('leak', kwargs => jsonb_build_object('what', 'leaked ' || i),
			task_id => 'leaked ' || i, owner => 'app')) FROM generate_series(1, 1000) AS i}
	);
	harmless_are_done('leak');
	await_no_task($node, 'leaked %');
	is( $node->safe_psql(
			'postgres', q{
			SELECT count(*), count(DISTINCT what), count(DISTINCT pid) >= 5, max(started) - min(started) < '30 s'
			FROM ledger WHERE what LIKE 'leaked %'}),
		'1000|1000|t|t',
		'tasks that leak have run, once, in ever new workers');
	cmp_ok(
		$node->safe_psql(
			'postgres', q{
			SELECT max(n) FROM (SELECT count(*) FROM ledger WHERE what LIKE 'leaked %' GROUP BY pid) AS x(n)}
		),
		'<=',
		200,
		'none of which has grown for ever');
	is( $node->safe_psql(
			'postgres',
			q{SELECT count(*) FROM taskshed.runs WHERE task_id LIKE 'leak%' AND (status, attempt) <> ('succeeded', 1)}
		),
		'0',
		'no run counts as interrupted');

	bad_citizen('segfault',
		q{add_task('bad_segfault', task_id => 'segfault', owner => 'app')});
	is( runs_of($node, 'segfault'),
		'interrupted 1, interrupted 1, interrupted 1',
		'a segmentation fault');
	foreach my $how ('exit', 'underscore_exit')
	{
		foreach my $code (0, 1, 2)
		{
			my $what = "$how $code";

			bad_citizen($what,
				qq{add_task('bad_$how', kwargs => '{"code": $code}', task_id => '$what', owner => 'app')}
			);
			is( runs_of($node, $what),
				'interrupted 1, interrupted 1, interrupted 1',
				"$what: failed after so many runs");
		}
	}

	# It can neither be cancelled nor terminated, and is left alone: others go
	# on.  When it is done at last its time is over.
	my $log = -s $node->logfile;

	append_to_file($file, 'go on');
	add_harmless(
		'loop in C',
		qq{SELECT taskshed.add_task('bad_loop', kwargs => jsonb_build_object('file', '$file'),
			task_id => 'loop in C', owner => 'app', timeout => '0.2 s')}
	);
	harmless_are_done('loop in C');
	$node->wait_for_log(qr/WARNING: .*loop in C/, $log);
	add_harmless('still there');
	harmless_are_done('still there');
	is( $node->safe_psql(
			'postgres',
			q{SELECT state FROM taskshed.tasks WHERE task_id = 'loop in C'}),
		'running',
		'a loop that does not listen goes on');
	is(count_in_log($node, qr/WARNING: .*loop in C/, $log),
		1, 'it is reported once');
	unlink $file;
	await(
		$node,
		q{SELECT state = 'failed' FROM taskshed.tasks WHERE task_id = 'loop in C'},
		'it has failed at its end');
	is(runs_of($node, 'loop in C'), 'timeout 1', 'as timed out');
}

is( $node->safe_psql(
		'postgres', q{
		SELECT what FROM ledger GROUP BY what HAVING count(*) > 1}),
	'',
	'nothing was done twice');

$node->stop;
done_testing();
