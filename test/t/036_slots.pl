
# There are fewer slots of max_worker_processes than taskshed could use: tasks
# wait, which the view status and one line in the log say; no database has to
# wait for the callbacks of another one, idle workers make room for others, and
# once there is room everything is done, each task once.
#
# Quick: promise 7

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use TaskshedTest;
use Test::More;

# Of these slots two are always left to others, one is the launcher's, and each
# database has a scheduler: three are for workers.
my $node = taskshed_node(
	'slots', conf => q{
max_worker_processes = 9
taskshed.max_workers = 8
taskshed.worker_idle_timeout = '1d'
});
my @databases = qw(postgres one two);
my @roles     = map { "role_$_" } 1 .. 8;
my $message   = q{message LIKE 'waiting for a slot of max_worker_processes%'};

$node->safe_psql('postgres', "CREATE ROLE $_ LOGIN") foreach @roles;
foreach (qw(one two))
{
	$node->safe_psql('postgres', "CREATE DATABASE $_");
	taskshed_database($node, $_);
}

# Waits until no database is waiting for a scheduler or a slot.
sub await_served
{
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	return await(
		$node, q{
		SELECT count(*) = 3 AND bool_and(state IN ('active', 'asleep') AND message IS NULL AND due = 0)
		FROM taskshed.status}, 'all databases are served');
}

# Adds a task for each of these roles, or the superuser, that leaves a line in
# the ledger.
sub add_notes
{
	my ($database, $what, @owners) = @_;

	$node->safe_psql($database,
		qq{SELECT taskshed.add_task('note', kwargs => '{"what": "$what"}', owner => '$_')}
	) foreach @owners;
	return;
}

# Changes max_worker_processes.
sub restart_with
{
	my ($slots) = @_;

	$node->append_conf('postgresql.conf', "max_worker_processes = $slots");
	$node->restart;
	return;
}

await_served();
is($node->safe_psql('postgres', 'SHOW max_worker_processes'),
	9, 'slots are scarce');

# Two databases have callbacks that do not end, of many roles.
my $log     = -s $node->logfile;
my @holders = map { session($node, $_) } qw(postgres one);
foreach my $i (0, 1)
{
	$holders[$i]->query('SELECT pg_advisory_lock(1)');
	$node->safe_psql(
		$databases[$i], qq{
		SELECT taskshed.add_task('hold', kwargs => '{"what": "held"}', owner => r)
		FROM unnest('{@{[join ',', @roles]}}'::name[]) r, generate_series(1, 2)});
	await(
		$node,
		"SELECT running > 0 FROM taskshed.status WHERE database = '$databases[$i]'",
		"a callback of $databases[$i] runs");
}
foreach my $i (0, 1)
{
	await(
		$node, qq{
		SELECT workers = 1 AND running = 1 AND due = 15 AND $message AND
			oldest_due BETWEEN (SELECT min(created_at) FROM taskshed.tasks) AND now()
		FROM taskshed.status WHERE database = current_database()},
		"$databases[$i] has one worker, and its other tasks wait visibly",
		$databases[$i]);
}
$node->wait_for_log(
	qr/LOG:  taskshed has no room for another process.*\n.*DETAIL: .*max_worker_processes = 9 .*\n.*HINT:  Increase max_worker_processes/,
	$log);

# The third one does not even notice, however many of its tasks there are.
add_notes('two', 'beside', @roles);
await_effects($node, 'beside', 8, 'two');
is( $node->safe_psql(
		'postgres', q{
		SELECT database, workers, running FROM taskshed.status WHERE database <> 'two' ORDER BY 1}
	),
	"one|1|1\npostgres|1|1",
	'the callbacks of the others still run');

# One of these ends: its database does its tasks, and its callbacks are in the
# way of none.
$holders[1]->query('SELECT pg_advisory_unlock(1)');
await_effects($node, 'held', 16, 'one');
add_notes('one', 'after', @roles);
await_effects($node, 'after', 8, 'one');
await(
	$node,
	q{SELECT due = 0 AND message IS NULL FROM taskshed.status WHERE database = 'one'},
	'nothing is waiting there any more');
is($node->safe_psql('postgres', 'SELECT count(*) FROM ledger'),
	0, 'a callback that holds its place does so all the time');
$holders[0]->query('SELECT pg_advisory_unlock(1)');
await_effects($node, 'held', 16, 'postgres');
$_->quit foreach @holders;
await_served();

# When another database has no use for them, one can have more than its share:
# all places but the one that is kept for each of the others.
my $holder = session($node);
$holder->query('SELECT pg_advisory_lock(1)');
$node->safe_psql('one', 'DROP EXTENSION taskshed');
await(
	$node,
	q{SELECT count(*) = 2 FROM taskshed.status},
	'one database is no longer served');
$node->safe_psql('postgres',
	q{SELECT taskshed.add_task('hold', kwargs => '{"what": "more"}') FROM generate_series(1, 9)}
);
await_blocked($node, 3);
add_notes('two', 'beside three', 'role_1');
await_effects($node, 'beside three', 1, 'two');
$holder->query('SELECT pg_advisory_unlock(1)');
await_effects($node, 'more', 9, 'postgres');
$holder->quit;
$node->safe_psql('one', 'CREATE EXTENSION taskshed');
await_served();

# There are four places for three databases.  A worker that is idle, and would be
# for a day, leaves for one of another database, or of another role.
restart_with(7);
await_served();
foreach my $role (@roles[ 0, 1 ])
{
	foreach my $database (@databases)
	{
		add_notes($database, 'idle', $role);
		await(
			$node,
			"SELECT count(*) = 1 FROM ledger WHERE what = 'idle' AND who = '$role/$role'",
			"an idle worker makes room for one of $role in $database",
			$database);
	}
}
cmp_ok(
	$node->safe_psql(
		'postgres',
		'SELECT count(scheduler_pid) + sum(workers) FROM taskshed.status'),
	'<=', 4,
	'there are four places');

# One that is never idle does, too: of the database with more tasks than can
# be done for each of the others, and for other roles of its own.
$node->safe_psql(
	'postgres',
	q{SELECT taskshed.add_task('pg_catalog.now', every => '1 us', task_id => 'greedy ' || n, owner => 'role_3')
	FROM generate_series(1, 3) n});
await(
	$node,
	q{SELECT count(*) = 3 FROM taskshed.tasks WHERE run_count > 10},
	'the greedy have their share');
foreach my $database (@databases)
{
	add_notes($database, 'busy', @roles[ 0, 1 ]);
}
await_effects($node, 'busy', 2, $_) foreach @databases;
my $runs =
  $node->safe_psql('postgres', 'SELECT min(run_count) FROM taskshed.tasks');
await(
	$node,
	"SELECT min(run_count) > $runs FROM taskshed.tasks",
	'the greedy go on');
$node->safe_psql('postgres', q{SELECT taskshed.remove_all_tasks('role_3')});
await_served();

# There is no place for a worker if each database has its scheduler: these make
# room for each other, even if a callback does not end.
restart_with(6);
await_served();
$holder = session($node);
$holder->query('SELECT pg_advisory_lock(1)');
$node->safe_psql('postgres',
	q{SELECT taskshed.add_task('hold', kwargs => '{"what": "crowd"}')});
await_blocked($node, 1);
add_notes($_, 'crowded', 'role_1') foreach qw(one two);
await_effects($node, 'crowded', 1, $_) foreach qw(one two);
is( $node->safe_psql(
		'postgres', q{SELECT count(*) FROM ledger WHERE what = 'crowd'}),
	0,
	'a callback goes on while its scheduler is away');
$holder->query('SELECT pg_advisory_unlock(1)');
await_effects($node, 'crowd', 1, 'postgres');
await(
	$node,
	'SELECT NOT EXISTS (SELECT FROM taskshed.tasks)',
	'and its end is noticed');
$holder->quit;

# Slots are taken by others.
restart_with(9);
await_served();
$log = -s $node->logfile;
my $session = session($node);
$session->query(
	q{
CREATE TABLE wide AS SELECT repeat('x', 1900) AS a FROM generate_series(1, 100);
ALTER TABLE wide SET (parallel_workers = 7);
SET parallel_setup_cost = 0;
SET parallel_tuple_cost = 0;
SET min_parallel_table_scan_size = 0;
SET max_parallel_workers_per_gather = 7});
$session->send('SELECT count(pg_sleep(600)) FROM wide');
await(
	$node,
	q{SELECT count(*) = 7 FROM pg_stat_activity WHERE backend_type = 'parallel worker'},
	'a parallel query has all slots that are left');
add_notes($_, 'parallel', 'role_1') foreach @databases;
foreach my $database (@databases)
{
	await(
		$node,
		"SELECT state = 'starting' AND due = 1 AND $message FROM taskshed.status WHERE database = current_database()",
		"the task of $database waits",
		$database);
}
$node->wait_for_log(
	qr/LOG:  taskshed has no room for another process.*\n.*DETAIL: .* others use the rest of max_worker_processes = 9.*\n.*HINT:  Increase max_worker_processes/,
	$log);
$node->safe_psql('postgres',
	q{SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE query LIKE 'SELECT count(pg_sleep%'}
);
like($session->result, qr/canceling statement/, 'the query has ended');
$session->quit;
await_effects($node, 'parallel', 1, $_) foreach @databases;
await_served();

# Each launcher has said so once a minute at most, however often it was told.
my @complaints = slurp_file($node->logfile) =~
  /^(\S+ \S+ \S+ \[\d+\]) .*taskshed has no room for another process/mg;
is( $node->safe_psql(
		'postgres', q{
		SELECT line FROM (SELECT line, split_part(line, ' [', 1)::timestamptz AS at,
				split_part(line, ' [', 2) AS launcher
			FROM unnest(ARRAY[}
		  . join(',', map { "'$_'" } @complaints) . q{]) AS line) AS x
		WHERE EXISTS (SELECT FROM unnest(ARRAY[}
		  . join(',', map { "'$_'" } @complaints) . q{]) AS other
			WHERE other <> line AND split_part(other, ' [', 2) = launcher
				AND abs(extract(epoch FROM split_part(other, ' [', 1)::timestamptz - at)) < 59)}
	),
	'',
	'the log has no two lines within a minute');
my %launchers;
foreach (@complaints)
{
	$launchers{$1} = 1 if /\[(\d+)\]/;
}
cmp_ok(scalar(keys %launchers),
	'>=', 3, 'and one for each time that slots were scarce');

foreach my $database (@databases)
{
	is( $node->safe_psql(
			$database, q{
			SELECT what, who FROM ledger WHERE what NOT IN ('held', 'more')
			GROUP BY 1, 2 HAVING count(*) > 1
			UNION ALL
			SELECT what, who FROM ledger WHERE what = 'held' GROUP BY 1, 2 HAVING count(*) <> 2}
		),
		'',
		"each task of $database ran once");
	is( $node->safe_psql(
			$database, q{SELECT task_id, state FROM taskshed.tasks}),
		'',
		"none is left");
}
$node->stop;
done_testing();
