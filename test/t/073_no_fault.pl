
# What is no fault of the task does not fail it, and is not lost: a shortage of the
# server's is outlasted; a procedure that was cut off by what is not counted knows
# that it has begun before.  And a task that fails all the time neither keeps the
# server busy nor fills the log.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use TaskshedTest;
use Test::More;

my $node = taskshed_node('no_fault', conf => "taskshed.max_workers = 8\n");

$node->safe_psql(
	'postgres', q{
CREATE ROLE app LOGIN;
CREATE PROCEDURE in_steps(what text, lock integer) LANGUAGE plpgsql AS $$
BEGIN
	PERFORM public.note(what || ' ' || (taskshed.current_task()).attempt);
	COMMIT;
	PERFORM public.hold(what || ' done', lock);
END $$;
CREATE FUNCTION fail() RETURNS void LANGUAGE plpgsql AS $$BEGIN RAISE 'no'; END$$;
GRANT pg_read_all_stats TO app;
});

sub try_as_app
{
	my ($call) = @_;
	return psql_as($node, 'app', "SELECT taskshed.$call");
}

sub ledger
{
	my ($pattern) = @_;
	return query(
		qq{SELECT string_agg(what, ', ' ORDER BY started) FROM ledger WHERE what LIKE '$pattern'}
	);
}

# The lines of the log about a task, with the detail behind each.
sub logged
{
	my ($task_id) = @_;
	my $log = slurp_file($node->logfile);

	return [ map { defined $_ ? $_ : '' }
		  $log =~
		  /WARNING:  task "$task_id" of role "app" in database "postgres" failed in [^\n]*\n(?:[^\n]*DETAIL:  ([^\n]*)\n)?/g
	];
}

#
# Cut off by what is not counted
#
my $outside = session($node, 'template1');
my $inside  = session($node);
my $refused = qr/is being accessed by other users/;
my %cuts    = (
	'no login' =>
	  [ 'ALTER ROLE app NOLOGIN', qr/^$/, 'ALTER ROLE app LOGIN' ],
	'no connect' => [
		'REVOKE CONNECT ON DATABASE postgres FROM PUBLIC',
		qr/^$/,
		'GRANT CONNECT ON DATABASE postgres TO PUBLIC'
	],
	'closed' => [
		'ALTER DATABASE postgres ALLOW_CONNECTIONS false',
		qr/^$/,
		'ALTER DATABASE postgres ALLOW_CONNECTIONS true'
	],
	'copied'  => [ 'CREATE DATABASE copy TEMPLATE postgres',  $refused ],
	'renamed' => [ 'ALTER DATABASE postgres RENAME TO other', $refused ],
	'dropped' => [ 'DROP DATABASE postgres',                  $refused ]);

# Nobody connects as such a role before that.
delete $cuts{'no login'} if $node->pg_version >= 17;

foreach my $cut (sort keys %cuts)
{
	my ($command, $result, $undo) = @{ $cuts{$cut} };

	$inside->query('SELECT pg_advisory_lock(1)');
	try_as_app(
		qq{add_task('in_steps', kwargs => '{"what": "$cut", "lock": 1}', task_id => '$cut')}
	);
	await_blocked($node, 1);
	my $pid =
	  query(qq{SELECT worker_pid FROM taskshed.tasks WHERE task_id = '$cut'});

	like($outside->query($command), $result, $command);
	await(
		$node,
		"SELECT NOT EXISTS (SELECT FROM pg_stat_activity WHERE pid = $pid)",
		"$cut: the run was ended", 'template1');
	is($outside->query($undo), '', $undo) if defined $undo;
	$inside->query('SELECT pg_advisory_unlock(1)');
	await_no_task($node, $cut);
	is( ledger("$cut %"),
		"$cut 1, $cut 2, $cut done",
		"$cut: the procedure knows that it has begun before");
	is( runs_of($node, $cut),
		'interrupted 1, succeeded 1',
		"$cut: an interruption");
}
$inside->quit;
$outside->quit;

#
# Failures over and over
#
try_as_app(
	q{add_task('fail', task_id => 'hopeless', max_attempts => 0, retry_delay => '0')}
);
await(
	$node,
	q{SELECT attempt >= 12 FROM taskshed.tasks WHERE task_id = 'hopeless'},
	'many attempts have failed');
try_as_app(q{remove_task('hopeless')});
is( query(
		q{
		SELECT string_agg(attempt::text, ', ' ORDER BY attempt)
		FROM (SELECT attempt, started_at - lag(finished_at) OVER (ORDER BY attempt) < '1 s'
			FROM taskshed.runs WHERE task_id = 'hopeless') AS x (attempt, soon)
		WHERE soon AND attempt > 10}),
	'',
	'after ten of them there is a second in between at least');
is_deeply(
	logged('hopeless'),
	[
		'',
		map {
			"It has failed $_ times in a row, each within a minute of the time before."
		} (2, 4, 8)
	],
	'those at powers of two are in the log');

# What fails now and then is logged each time.
try_as_app(q{add_task('fail', task_id => 'nightly', every => '1 day')});
foreach my $night (1 .. 3)
{
	await(
		$node,
		"SELECT run_count = $night FROM taskshed.tasks WHERE task_id = 'nightly'",
		"the run of night $night is over");
	query(
		q{UPDATE _taskshed.alarm SET last_run_at = last_run_at - interval '1 day'
		WHERE id IN (SELECT id FROM _taskshed.task WHERE task_id = 'nightly')}
	);
	try_as_app(q{update_execution_time('nightly', clock_timestamp())});
}
await(
	$node,
	q{SELECT run_count = 4 FROM taskshed.tasks WHERE task_id = 'nightly'},
	'the last run is over');
is_deeply(
	logged('nightly'),
	[ '', '', '', '' ],
	'what fails once a night is logged each night');

#
# Shortages
#
SKIP:
{
	my $library = "$PostgreSQL::Test::Utils::tmp_check/bad_citizens.so";
	my $include = `pg_config --includedir-server`;
	my $source  = "$FindBin::RealBin/../modules/bad_citizens.c";

	chomp $include;
	skip 'no C compiler', 1
	  if system("cc -shared -fPIC -I'$include' -o '$library' '$source'") != 0;
	query(
		qq{
		CREATE FUNCTION bad_error(sqlstate text) RETURNS void LANGUAGE c AS '$library';
		CREATE TABLE short ();
		CREATE FUNCTION run_short(what text, sqlstate text) RETURNS void LANGUAGE plpgsql AS \$\$
		BEGIN
			PERFORM public.note(what);
			IF to_regclass('public.short') IS NOT NULL THEN
				PERFORM public.bad_error(sqlstate);
			END IF;
		END \$\$;
		CREATE PROCEDURE steps_short(what text, sqlstate text) LANGUAGE plpgsql AS \$\$
		BEGIN
			PERFORM public.note(what || ' ' || (taskshed.current_task()).attempt);
			COMMIT;
			CALL public.run_short_in_steps(what, sqlstate);
		END \$\$;
		CREATE PROCEDURE run_short_in_steps(what text, sqlstate text) LANGUAGE plpgsql AS \$\$
		BEGIN
			PERFORM public.run_short(what || ' done', sqlstate);
		END \$\$;
		CREATE FUNCTION says_short(sqlstate text) RETURNS void LANGUAGE plpgsql AS \$\$
		BEGIN
			RAISE 'my own word' USING ERRCODE = sqlstate;
		END \$\$});
	my @codes = ('53100', '53200', '53300');

	foreach my $code (@codes)
	{
		try_as_app(
			qq{add_task('run_short', kwargs => '{"what": "once $code", "sqlstate": "$code"}', task_id => 'once $code')}
		);
	}
	try_as_app(
		q{add_task('run_short', kwargs => '{"what": "skips", "sqlstate": "53100"}', every => '1 day',
		catch_up => 'skip', max_runs => 1, task_id => 'skips')});
	try_as_app(
		q{add_task('steps_short', kwargs => '{"what": "steps", "sqlstate": "53200"}', task_id => 'steps')}
	);
	my @tasks = ((map { "once $_" } @codes), 'skips', 'steps');
	my $tasks = join(', ', map { "'$_'" } @tasks);

	await(
		$node, qq{
		SELECT count(*) = 5 FROM (
			SELECT task_id FROM taskshed.runs WHERE task_id IN ($tasks) AND status = 'failed'
			GROUP BY 1 HAVING count(*) >= 3) AS x},
		'all have failed three times');
	is( query(
			qq{
			SELECT count(*) FROM taskshed.tasks
			WHERE task_id IN ($tasks) AND state IN ('scheduled', 'due', 'running') AND attempt = 0
				AND run_count = 0 AND failures_in_row = 0
				AND last_status = 'failed' AND last_sqlstate LIKE '53_00' AND last_error = 'as the server says it'}
		),
		'5',
		'none counts as failed, and each shows the error');
	is( query(
			qq{
			SELECT task_id, n, gap FROM (
				SELECT task_id, row_number() OVER w,
					extract(epoch FROM started_at - lag(finished_at) OVER w)
				FROM taskshed.runs WHERE task_id IN ($tasks)
				WINDOW w AS (PARTITION BY task_id ORDER BY finished_at, run_id)) AS x (task_id, n, gap)
			WHERE (n = 2 AND gap < 0.99) OR (n = 3 AND gap < 1.99)}),
		'',
		'they are tried again later and later');
	query('DROP TABLE short');
	await_no_task($node, $_) foreach @tasks;
	foreach my $task_id (@tasks)
	{
		like(
			runs_of($node, $task_id),
			qr/^failed 1(, failed 1){2,}, succeeded 1$/,
			"$task_id: when there is space again, it succeeds");
		is_deeply(
			logged($task_id),
			[
				'It is tried again for an hour without being counted, after 1, 2, 4 ... 64 seconds.'
			],
			"$task_id: one line in the log");
	}
	is( query(
			q{SELECT string_agg(what, ', ' ORDER BY started) FROM ledger WHERE what LIKE 'steps _'}
		),
		join(
			', ',
			map { "steps $_" } 1 .. query(
				q{SELECT count(*) FROM taskshed.runs WHERE task_id = 'steps'})
		),
		'the procedure knows that it has begun before');

	# A run by hand is not tried again: that would keep the schedule waiting.
	query('CREATE TABLE short ()');
	try_as_app(
		q{add_task('run_short', '2100-01-01', '{"what": "by hand", "sqlstate": "53200"}', task_id => 'by hand')}
	);
	try_as_app(q{run_tasks(ARRAY['by hand'])});
	await(
		$node,
		q{SELECT last_status = 'failed' FROM taskshed.tasks WHERE task_id = 'by hand' AND state = 'scheduled'},
		'the run by hand has failed');
	is( query(
			q{SELECT run_at = '2100-01-01', failures_in_row, (SELECT count(*) FROM _taskshed.alarm WHERE shortage_since IS NOT NULL)
			FROM taskshed.tasks WHERE task_id = 'by hand'}
		),
		't|0|0',
		'and has left the schedule as it was');

	# One that is moved meanwhile has not failed either.
	my $locker = session($node);
	$locker->query('SELECT pg_advisory_lock(2)');
	query(
		q{
		CREATE FUNCTION held_short() RETURNS void LANGUAGE plpgsql AS $$
		BEGIN
			PERFORM public.hold('held', 2);
			PERFORM public.bad_error('53100');
		END $$});
	try_as_app(
		q{add_task('held_short', every => '1 day', max_runs => 1, task_id => 'moved')}
	);
	await_blocked($node, 1, 2);
	try_as_app(q{update_execution_time('moved', '2100-01-01')});
	$locker->query('SELECT pg_advisory_unlock(2)');
	$locker->quit;
	await(
		$node,
		q{SELECT last_sqlstate = '53100' FROM taskshed.tasks WHERE task_id = 'moved'},
		'the run has ended');
	is( query(
			q{SELECT state, run_count, failures_in_row, run_at = '2100-01-01' FROM taskshed.tasks WHERE task_id = 'moved'}
		),
		'scheduled|0|0|t',
		'a task that was moved in a shortage waits for its new time');
	query('DROP TABLE short');

	# After an hour it counts.
	query('CREATE TABLE short ()');
	try_as_app(
		q{add_task('run_short', kwargs => '{"what": "long", "sqlstate": "53100"}', task_id => 'long')}
	);
	await(
		$node,
		q{SELECT last_status = 'failed' FROM taskshed.tasks WHERE task_id = 'long'},
		'it has failed');
	query(
		q{UPDATE _taskshed.alarm SET shortage_since = shortage_since - interval '1 hour'
		WHERE shortage_since IS NOT NULL});
	await_state($node, 'long', 'failed');
	is(scalar(@{ logged('long') }), 2, 'then it is logged again');

	# No shortage: what the callback itself says, a limit that somebody has set.
	try_as_app(
		qq{add_task('says_short', kwargs => '{"sqlstate": "$_"}', task_id => 'says $_')}
	) foreach @codes;
	try_as_app(
		q{add_task('run_short', kwargs => '{"what": "limit", "sqlstate": "53400"}', task_id => 'limit')}
	);
	await_state($node, $_, 'failed')
	  foreach ((map { "says $_" } @codes), 'limit');
	is(runs_of($node, $_), 'failed 1', "$_ is a failure")
	  foreach ((map { "says $_" } @codes), 'limit');
}

$node->stop;
done_testing();
