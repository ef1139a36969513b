
# A database with nothing to do costs no process: its scheduler leaves, and is
# back before the next task is due, or at once when there is one for now.  With
# more databases than places for schedulers all come to their turn.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use TaskshedTest;
use Test::More;

my $N = 100;

# (The server's default: five of these slots are for schedulers and workers.)
my $node = taskshed_node(
	'asleep', conf => q{
max_worker_processes = 8
restart_after_crash = on
taskshed.scheduler_idle_timeout = '1s'
taskshed.worker_idle_timeout = '1s'
});
my @databases = map { "d$_" } 1 .. $N;

# How many processes of taskshed there are beside the launcher.
my $processes =
  q{SELECT count(*) FROM pg_stat_activity WHERE backend_type IN ('taskshed scheduler', 'taskshed worker')};

sub await_asleep
{
	my ($what, $condition) = @_;

	$condition = 'true' unless defined $condition;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	return await(
		$node,
		qq{SELECT bool_and(state = 'asleep' AND scheduler_pid IS NULL) FROM taskshed.status WHERE $condition},
		$what);
}

# Adds a task that leaves a line in the ledger, so long from now.
sub add
{
	my ($database, $what, $ahead, $more) = @_;

	$node->safe_psql(
		$database,
		qq{SELECT taskshed.add_task('note', t, jsonb_build_object('what', '$what', 'planned', t))
		FROM (SELECT clock_timestamp() + interval '$ahead' AS t) AS x});
	return;
}

sub await_ledger
{
	my ($database, $what) = @_;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	return await(
		$node,
		"SELECT EXISTS (SELECT FROM ledger WHERE what = '$what')",
		"\"$what\" has run in $database", $database);
}

# Of the runs in several databases: the longest lag.
sub max_lag
{
	my ($what, @of) = @_;
	my @lags = map {
		$node->safe_psql($_,
			"SELECT max(round(1000 * extract(epoch FROM started - planned), 1)) FROM ledger WHERE what = '$what'"
		)
	} @of;

	is(scalar(grep { $_ < 0 } @lags), 0, "no $what has run too early");
	return (sort { $a <=> $b } @lags)[-1];
}

# A hundred databases, made from a template that has the extension, each with a
# task some day, and some without the extension.
$node->safe_psql('postgres', 'CREATE DATABASE model');
taskshed_database($node, 'model');
$node->safe_psql('postgres', 'ALTER DATABASE model IS_TEMPLATE true');
$node->safe_psql('postgres', join ';',
	map { "CREATE DATABASE without$_" } 1 .. 5);
foreach my $database (@databases)
{
	$node->safe_psql('postgres', "CREATE DATABASE $database TEMPLATE model");
	$node->safe_psql($database,
		q{SELECT taskshed.add_task('note', '2100-01-01', '{"what": "some day"}')}
	);
}
await_asleep('all databases are asleep');
is( $node->safe_psql(
		'postgres',
		q{SELECT count(*), count(*) FILTER (WHERE next_wakeup > '2099-12-31 23:59'), sum(due) FROM taskshed.status}
	),
	($N + 1) . "|$N|0",
	'the status shows them, and when they have something to do');
diag(   "$N databases that are asleep: "
	  . $node->safe_psql('postgres', $processes)
	  . ' processes beside the launcher');
is($node->safe_psql('postgres', $processes), '0', 'they cost no process');

# The same after a restart, and a crash.
my $log = -s $node->logfile;
$node->restart;
await(
	$node,
	"SELECT count(*) = $N + 1 AND bool_and(state = 'asleep') FROM taskshed.status",
	'all were looked into after a restart');
is($node->safe_psql('postgres', $processes), '0', 'and cost no process then');
unlike(
	slurp_file($node->logfile, $log),
	qr/no room for another process/,
	'five places are enough for that');
$log = -s $node->logfile;
kill 'KILL', pids_of($node, "backend_type = 'taskshed launcher'");
$node->wait_for_log(qr/database system is ready to accept connections/, $log);
await(
	$node,
	"SELECT count(*) = $N + 1 AND bool_and(state = 'asleep') FROM taskshed.status",
	'the same after a crash');

# Nothing is looked into again when only the launcher has ended.
my $commits =
  q{SELECT sum(xact_commit) FROM pg_stat_database WHERE datname LIKE 'without%'};
$node->safe_psql('postgres', 'SELECT pg_sleep(1)');
my $before = $node->safe_psql('postgres', $commits);
my ($launcher) = pids_of($node, "backend_type = 'taskshed launcher'");
$node->safe_psql('postgres', "SELECT pg_terminate_backend($launcher)");
await(
	$node,
	"SELECT pid <> $launcher FROM pg_stat_activity WHERE backend_type = 'taskshed launcher'",
	'the launcher has been replaced');

# Tasks for now, and for some time ahead
my @some = @databases[ 0 .. 4 ];
foreach my $database (@some)
{
	add($database, 'now', '0 s');
	await_ledger($database, 'now');
}
diag(   'tasks for now in databases that are asleep: lag of '
	  . max_lag('now', @some)
	  . ' ms at most');
is($node->safe_psql('postgres', $commits),
	$before, 'nobody has looked into databases without the extension again');
add($_, 'ahead', '15 s') foreach @some;
await_asleep('they are asleep again');
is( $node->safe_psql(
		'postgres',
		q{SELECT count(*) FROM taskshed.status WHERE next_wakeup < now() + interval '20 s'}
	),
	5,
	'and it is known when they have something to do');

# A database that sleeps until some day is told of something before.
add('d6', 'in the meantime', '12 s');
await(
	$node,
	q{SELECT state = 'asleep' AND next_wakeup < now() + interval '13 s' FROM taskshed.status WHERE database = 'd6'},
	'a database sleeps until a task that was added meanwhile');
await_ledger($_,   'ahead') foreach @some;
await_ledger('d6', 'in the meantime');
diag(   'tasks ahead in databases that are asleep: lag of '
	  . max_lag('ahead', @some)
	  . ' ms at most');

# To an ordinary role
$node->safe_psql('postgres', 'CREATE ROLE app LOGIN');
is( psql_as(
		$node,
		'app',
		'SELECT database, state, scheduler_pid, due, next_wakeup FROM taskshed.status',
		'd7'),
	'd7|asleep||0|',
	'to a role without tasks the status says that it works');

# Leaving as soon as possible, and tasks that come at that moment
set_and_reload(
	$node,
	'taskshed.scheduler_idle_timeout' => '0',
	'taskshed.worker_idle_timeout'    => '0');
$node->safe_psql(
	'd8', q{
CREATE PROCEDURE race(n integer) LANGUAGE plpgsql AS $$
DECLARE
	give_up timestamptz;
BEGIN
	FOR i IN 1 .. n LOOP
		PERFORM taskshed.add_task('note', kwargs => jsonb_build_object('what', 'race ' || i));
		COMMIT;
		give_up := clock_timestamp() + interval '50 s';
		WHILE NOT EXISTS (SELECT FROM ledger WHERE what = 'race ' || i) LOOP
			IF clock_timestamp() > give_up THEN
				RAISE 'task % does not run', i;
			END IF;
			PERFORM pg_sleep(0.002);
			COMMIT;
		END LOOP;
		PERFORM pg_sleep(0.02 * random());
	END LOOP;
END $$});
$node->safe_psql('d8', 'CALL race(200)');
is( $node->safe_psql(
		'd8',
		q{SELECT count(*), count(DISTINCT what) FROM ledger WHERE what LIKE 'race%'}
	),
	'200|200',
	'no task is lost that comes when a scheduler leaves');
await_asleep('it has left', q{database = 'd8'});

# DROP DATABASE and others
$node->safe_psql('d9',
	q{SELECT taskshed.add_task('note', now() + interval '12 s', '{"what": "opened"}')}
);
await_asleep('it sleeps', q{database = 'd9'});
$node->safe_psql('postgres', 'DROP DATABASE d10');
$node->safe_psql('postgres', 'ALTER DATABASE d11 RENAME TO e11');
$node->safe_psql('postgres', 'ALTER DATABASE d12 ALLOW_CONNECTIONS false');
$node->safe_psql('postgres', 'ALTER DATABASE d9 ALLOW_CONNECTIONS false');
await(
	$node,
	q{SELECT count(*) = 0 FROM taskshed._status() WHERE database NOT IN (SELECT oid FROM pg_database WHERE datallowconn)},
	'databases that were dropped or closed asleep are forgotten');
add('e11', 'renamed', '0 s');
await_ledger('e11', 'renamed');
$node->safe_psql('postgres', 'ALTER DATABASE d9 ALLOW_CONNECTIONS true');

# taskshed.enabled, for all and for one
set_and_reload($node, 'taskshed.enabled' => 'off');
await(
	$node,
	q{SELECT bool_and(state = 'disabled') FROM taskshed.status},
	'all are disabled, asleep or not');
add('d13', 'disabled', '0 s');
await(
	$node,
	q{SELECT state = 'disabled' AND due = 1 AND scheduler_pid IS NULL FROM taskshed.status WHERE database = 'd13'},
	'a task that is due waits, and no scheduler with it',
	'd13');
set_and_reload($node, 'taskshed.enabled' => undef);
await_ledger('d13', 'disabled');
$node->safe_psql('postgres', 'ALTER DATABASE d14 SET taskshed.enabled = off');
add('d14', 'disabled', '0 s');
await(
	$node,
	q{SELECT state = 'disabled' AND scheduler_pid IS NULL FROM taskshed.status WHERE database = 'd14'},
	'one is disabled');
$node->safe_psql('postgres', 'ALTER DATABASE d14 RESET taskshed.enabled');
await_ledger('d14', 'disabled');

# A role that is locked out, and let in again
$node->safe_psql('d15',
	q{SELECT taskshed.add_task('note', kwargs => '{"what": "let in"}', owner => 'app', task_id => 'let in', paused => true)}
);
$node->safe_psql('postgres',
	'REVOKE CONNECT ON DATABASE d15 FROM PUBLIC; CREATE ROLE other');
$node->safe_psql('d15', q{SELECT taskshed.resume_task('let in', 'app')});
await(
	$node,
	q{SELECT state = 'asleep' AND scheduler_pid IS NULL AND message LIKE 'role "app"%connect%' FROM taskshed.status WHERE database = 'd15'},
	'what waits for a role keeps no scheduler');
$node->safe_psql('postgres', 'GRANT CONNECT ON DATABASE d15 TO app');
await_ledger('d15', 'let in');
await_ledger('d9',  'opened');
set_and_reload(
	$node,
	'taskshed.scheduler_idle_timeout' => '1s',
	'taskshed.worker_idle_timeout'    => '1s');

# Twenty databases that have something to do all the time
my @busy = @databases[ 20 .. 39 ];
$node->safe_psql($_,
	q{SELECT taskshed.add_task('note', kwargs => '{"what": "busy"}', every => '10 ms', task_id => 'busy')}
) foreach @busy;
await_ledger($_, 'busy') foreach @busy;
my %runs = map {
	$_ => $node->safe_psql($_,
		q{SELECT run_count FROM taskshed.tasks WHERE task_id = 'busy'})
} @busy;
cmp_ok($node->safe_psql('postgres', $processes),
	'<=', 5, 'two of eight slots are left free');
add('d50', 'beside', '0 s');
await_ledger('d50', 'beside');
foreach my $database (@busy)
{
	await(
		$node,
		"SELECT run_count > $runs{$database} FROM taskshed.tasks WHERE task_id = 'busy'",
		"$database comes to its turn again",
		$database);
}
diag(
	'runs of a task of each of 20 databases that take turns: ' . join ' ',
	map {
		$node->safe_psql($_,
			q{SELECT run_count FROM taskshed.tasks WHERE task_id = 'busy'})
	} @busy);
$node->safe_psql($_, q{SELECT taskshed.remove_task('busy')}) foreach @busy;
await_asleep('all sleep again');

$node->stop;
done_testing();
