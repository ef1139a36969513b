
# Databases are dropped, renamed, moved, copied and closed as if taskshed had no
# processes there: these leave at once and come back if the command is refused or
# rolled back, and what was running does not count as interrupted.  Only who may
# give such a command can end them that way.
#
# Quick: DROP DATABASE

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use TaskshedTest;
use Test::More;
use Time::HiRes qw(time);

# (One interruption that counts would be one too many.)
my $node = taskshed_node(
	'databases', conf => q{
taskshed.max_interruptions = 1
allow_in_place_tablespaces = on
});

$node->safe_psql('postgres',
	'CREATE ROLE owns LOGIN CREATEDB; CREATE ROLE mallory LOGIN CREATEDB');
$node->safe_psql('postgres', q{CREATE TABLESPACE elsewhere LOCATION ''});
$node->safe_psql('postgres', 'GRANT CREATE ON TABLESPACE elsewhere TO owns');

# Makes a database.  There, waits() runs until somebody opens the gate, spins()
# until it is ended.  (An advisory lock, as other tests have it, would be held by
# a session of that database.)
sub make_database
{
	my ($name) = @_;

	$node->safe_psql('postgres', "CREATE DATABASE $name OWNER owns");
	taskshed_database($node, $name);
	$node->safe_psql(
		$name, q{
		CREATE TABLE gate ();
		CREATE FUNCTION waits() RETURNS void LANGUAGE plpgsql AS $$
		BEGIN
			WHILE NOT EXISTS (SELECT FROM public.gate) LOOP
				PERFORM pg_sleep(0.001);
			END LOOP;
			PERFORM public.note('waited');
		END $$;
		CREATE FUNCTION spins() RETURNS void LANGUAGE plpgsql AS 'BEGIN LOOP END LOOP; END'}
	);
	return;
}

# Adds a task that waits at the gate, and waits until it does.
my $nruns = 0;

sub start_run
{
	my ($name) = @_;

	$nruns++;
	$node->safe_psql($name,
		"TRUNCATE gate, ledger; SELECT taskshed.add_task('waits', task_id => 'run $nruns')"
	);
	await_running($name);
	return;
}

sub await_running
{
	my ($name) = @_;

	return await(
		$node,
		q{SELECT state = 'running' FROM taskshed.tasks WHERE callback = 'public.waits'},
		"the callback in $name runs",
		$name);
}

# Opens the gate: the task has its effect once, after so many interruptions
# that did not count.
sub finish_run
{
	my ($name, $interrupted, $what) = @_;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	await_running($name);
	$node->safe_psql($name, 'INSERT INTO gate DEFAULT VALUES');
	await(
		$node,
		'SELECT NOT EXISTS (SELECT FROM taskshed.tasks)',
		'the task is done', $name);
	is( $node->safe_psql(
			$name,
			qq{SELECT string_agg(status || ' ' || attempt, ', ' ORDER BY finished_at, run_id), (SELECT count(*) FROM ledger)
			FROM taskshed.runs WHERE task_id = 'run $nruns'}
		),
		('interrupted 1, ' x $interrupted) . 'succeeded 1|1',
		"$what: the task has run once in the end");
	return;
}

# Our processes that are connected to a database.
sub processes
{
	my ($name) = @_;

	return join ' ',
	  pids_of($node, "datname = '$name' AND backend_type LIKE 'taskshed%'");
}

# One statement as somebody; returns the error.
sub try_as
{
	my ($role, $statement) = @_;
	my ($rc, $out, $err) =
	  $node->psql('postgres', $statement, extra_params => [ '-U', $role ]);

	return $err;
}

# DROP DATABASE
my (@took, @errors);
foreach my $i (1 .. 20)
{
	my $name = "busy$i";

	make_database($name);
	$node->safe_psql(
		$name, q{
		SELECT taskshed.add_task('spins');
		SELECT taskshed.add_task('waits');
		SELECT taskshed.add_task('note', kwargs => '{"what": "often"}', every => '1 ms')}
	);
	await_running($name);
	await($node, 'SELECT EXISTS (SELECT FROM ledger)', 'tasks run', $name);

	my $begin = time();
	my $error = try_as($i % 2 ? 'owns' : 'postgres',
		"DROP DATABASE $name" . ($i % 4 < 2 ? ' WITH (FORCE)' : ''));
	push @took,   1000 * (time() - $begin);
	push @errors, $error if $error ne '';
}
is("@errors", '', '20 databases with busy workers are dropped');
@took = sort { $a <=> $b } @took;
diag(
	sprintf 'DROP DATABASE with busy workers, psql included: %.0f to %.0f ms',
	@took[ 0, -1 ]);
await(
	$node,
	'SELECT NOT EXISTS (SELECT FROM taskshed._status() WHERE database NOT IN (SELECT oid FROM pg_database))',
	'nothing of them is left in shared memory');

# One without tasks that are due, and one without the extension
make_database('lazy');
$node->safe_psql('lazy', q{SELECT taskshed.add_task('spins', '2100-01-01')});
is(try_as('owns', 'DROP DATABASE lazy'), '', 'one with an idle scheduler');
$node->safe_psql('postgres', 'CREATE DATABASE without OWNER owns');
is(try_as('owns', 'DROP DATABASE without'), '', 'one without taskshed');

# What is refused, or taken back
make_database('d');
start_run('d');
my $guest = session($node, 'd');
like(
	try_as('owns', 'DROP DATABASE d'),
	qr/is being accessed by other users.*There is 1 other session/s,
	'a session of somebody else is in the way');
$guest->quit;
finish_run('d', 1, 'a refused DROP DATABASE');

start_run('d');
my $session = session($node);
$session->query('BEGIN; ALTER DATABASE d RENAME TO e');
is(processes('d') . processes('e'),
	'', 'nothing of ours is there before the rename is committed');
is($session->query('ROLLBACK'), '', '... nor when it is taken back');
$session->quit;
finish_run('d', 1, 'ALTER DATABASE RENAME that is rolled back');

# Refused in a savepoint: there is no need to wait for the end of the transaction.
start_run('d');
$session = session($node);
$session->query('BEGIN; SAVEPOINT s');
like(
	$session->query('CREATE DATABASE copy TEMPLATE d'),
	qr/cannot run inside a transaction block/,
	'refused in a transaction');
is($session->query('ROLLBACK TO s'), '', 'the savepoint is rolled back to');
finish_run('d', 1, 'a command refused in a savepoint');
start_run('d');
$session->query(
	'SAVEPOINT t; ALTER DATABASE d RENAME TO e; RELEASE SAVEPOINT t');
is(processes('d') . processes('e'),
	'', 'what a savepoint that was released has done stands');
$session->query('ROLLBACK');
$session->quit;
finish_run('d', 1, 'ALTER DATABASE RENAME in a savepoint');

# What is not
start_run('d');
is(try_as('owns', 'ALTER DATABASE d RENAME TO e'), '', 'a database renamed');
finish_run('e', 1, 'ALTER DATABASE RENAME');
is(try_as('owns', 'ALTER DATABASE e RENAME TO d'), '', 'and back');

start_run('d');
is(try_as('owns', 'ALTER DATABASE d SET TABLESPACE elsewhere'),
	'', 'a database moved');
finish_run('d', 1, 'ALTER DATABASE SET TABLESPACE');

start_run('d');
is(try_as('owns', 'CREATE DATABASE copy TEMPLATE d'), '',
	'a database copied');
finish_run('d', 1, 'CREATE DATABASE TEMPLATE');
await(
	$node,
	q{SELECT state <> 'starting' FROM taskshed.status WHERE database = 'copy'},
	'the copy was looked into');
is(try_as('owns', 'DROP DATABASE copy'), '', 'the copy dropped');

start_run('d');
is(try_as('owns', 'ALTER DATABASE d ALLOW_CONNECTIONS false'),
	'', 'a database closed');
is(processes('d'), '', 'nothing of ours is in a closed database');
is(try_as('owns', 'ALTER DATABASE d ALLOW_CONNECTIONS true'),
	'', 'a database opened');
finish_run('d', 1, 'ALTER DATABASE ALLOW_CONNECTIONS');

start_run('d');
is(try_as('owns', 'ALTER DATABASE d IS_TEMPLATE true'), '', 'a template');
is(processes('d'), '', 'nothing of ours is in a template');
my ($rc, $out, $err) = $node->psql('d',
	q{SELECT taskshed.add_task('spins', '2100-01-01', task_id => 'template')}
);
like(
	$err,
	qr/WARNING:  database "d" is a template, so tasks wait\nHINT:  .*IS_TEMPLATE false/,
	'which add_task says');
is($node->safe_psql('d', q{SELECT taskshed.remove_task('template')}),
	't', 'not more');
is(try_as('owns', 'ALTER DATABASE d IS_TEMPLATE false'),
	'', 'no template any more');
finish_run('d', 1, 'ALTER DATABASE IS_TEMPLATE');

# Closed and opened again, at once and after so many milliseconds, when a scheduler
# may be anywhere on its way: one that is open in the end is served.
$node->safe_psql('d',
	q{SELECT taskshed.add_task('note', kwargs => '{"what": "often"}', every => '20 ms', task_id => 'often')}
);
my $toggler = session($node);

sub close_and_open
{
	my ($delay) = @_;

	foreach my $command (
		[ 'IS_TEMPLATE',       'true',  'false' ],
		[ 'ALLOW_CONNECTIONS', 'false', 'true' ])
	{
		my ($option, $close, $open) = @$command;
		my $sleep = "DO 'BEGIN PERFORM pg_sleep(0.001 * $delay); END'";

		($close, $open) =
		  map { "ALTER DATABASE d $option $_" } ($close, $open);
		is( $toggler->query(
				"$close; $open; $sleep; $close; $sleep; $open; $close; $open"
			),
			'',
			"$close and opened, with $delay ms");
		$node->safe_psql('d', 'TRUNCATE ledger');
		await($node, 'SELECT EXISTS (SELECT FROM ledger)', 'tasks run', 'd');
	}
	return;
}
close_and_open($_ / 2) foreach 0 .. 40;

# The same while there are so many databases that the launcher is slow to find out
# which it may serve.  (They are rows only, of which none can be connected to.)
$node->safe_psql(
	'postgres', q{
	SET allow_system_table_mods = on;
	INSERT INTO pg_catalog.pg_database
	SELECT (jsonb_populate_record(d, jsonb_build_object('oid', 10000000 + n,
			'datname', 'row ' || n, 'datallowconn', false))).*
	FROM pg_catalog.pg_database AS d, generate_series(1, 30000) AS n
	WHERE datname = 'template0'});
close_and_open($_) foreach 0 .. 20;
$node->safe_psql('postgres',
	q{SET allow_system_table_mods = on; DELETE FROM pg_catalog.pg_database WHERE datname LIKE 'row %'}
);
$node->safe_psql('d', q{SELECT taskshed.remove_task('often')});

# Closed before a process that was asked for has come, which takes a while when the
# postmaster is stopped: it is not missed, does not even try to connect, and its place
# is taken at once when the database is open.
my $postmaster =
  (split "\n", slurp_file($node->data_dir . '/postmaster.pid'))[0];
my $inside = session($node, 'd');

foreach my $process (('scheduler', 'worker') x 5)
{
	# (with a task some time ahead, so that the scheduler stays)
	$node->safe_psql(
		'd', q{
		TRUNCATE ledger;
		SELECT taskshed.remove_all_tasks();
		SELECT taskshed.add_task('note', now() + interval '4 minutes', '{"what": "later"}')}
	);
	$toggler->query('ALTER DATABASE d ALLOW_CONNECTIONS false');
	await(
		$toggler,
		q{SELECT NOT EXISTS (SELECT FROM taskshed._status() AS s JOIN pg_database AS d ON s.database = d.oid WHERE datname = 'd')},
		'no scheduler is wanted');
	if ($process eq 'worker')
	{
		$toggler->query('ALTER DATABASE d ALLOW_CONNECTIONS true');
		await(
			$toggler,
			q{SELECT state = 'active' FROM taskshed.status WHERE database = 'd'},
			'there is a scheduler');
	}
	kill 'STOP', $postmaster;
	eval {
		$toggler->query('ALTER DATABASE d ALLOW_CONNECTIONS true')
		  if $process eq 'scheduler';
		$inside->query(
			q{SELECT taskshed.add_task('note', kwargs => '{"what": "asked"}')}
		);
		await(
			$toggler,
			$process eq 'scheduler'
			? q{SELECT state = 'starting' FROM taskshed.status WHERE database = 'd'}
			: q{SELECT due = 1 FROM taskshed.status WHERE database = 'd'},
			"a $process is asked for");
		$toggler->query('ALTER DATABASE d ALLOW_CONNECTIONS false');
	};
	kill 'CONT', $postmaster;
	die $@ if $@;
	$toggler->query('ALTER DATABASE d ALLOW_CONNECTIONS true');
	await($node, 'SELECT EXISTS (SELECT FROM ledger)', 'it runs', 'd');
}
$_->quit foreach ($toggler, $inside);
$node->safe_psql('d', 'SELECT taskshed.remove_all_tasks()');
unlike(
	slurp_file($node->logfile),
	qr/taskshed [a-z]+ .*FATAL.*not currently accepting connections/,
	'none of our processes was refused');

# From within the database, and more than one thing at a time
start_run('d');
($rc, $out, $err) = $node->psql(
	'd',
	'CREATE DATABASE copy TEMPLATE d',
	extra_params => [ '-U', 'owns' ]);
is($err, '', 'a database copied from within');
finish_run('d', 1, 'CREATE DATABASE TEMPLATE from within');
is(try_as('owns', 'DROP DATABASE copy'), '', 'the copy dropped');

start_run('d');
is( $node->safe_psql(
		'd', 'ALTER DATABASE d ALLOW_CONNECTIONS true IS_TEMPLATE true'),
	'',
	'a template, from within');
is(processes('d'), '', 'nothing of ours is in it');
is(try_as('mallory', 'CREATE DATABASE copy TEMPLATE d'),
	'', 'so anybody can copy it');
is(try_as('mallory', 'DROP DATABASE copy'), '', '... and drop the copy');
is(try_as('owns',    'ALTER DATABASE d IS_TEMPLATE DEFAULT'),
	'', 'no template any more');
finish_run('d', 1, 'ALTER DATABASE IS_TEMPLATE from within');

# By a callback: its worker ends its run, and goes.
$node->safe_psql(
	'd', q{
	CREATE FUNCTION close_it() RETURNS void LANGUAGE plpgsql AS $$
	BEGIN
		ALTER DATABASE d IS_TEMPLATE true;
		PERFORM public.note('closed');
	END $$;
	TRUNCATE ledger;
	SELECT taskshed.add_task('close_it', max_attempts => 1)});
await(
	$node,
	q{SELECT count(*) = 1 FROM ledger WHERE what = 'closed'},
	'a callback has made its database a template', 'd');
is(try_as('mallory', 'CREATE DATABASE copy TEMPLATE d'),
	'', 'anybody can copy it then');
is(try_as('mallory', 'DROP DATABASE copy'), '', '... and drop the copy');
is(try_as('owns',    'ALTER DATABASE d IS_TEMPLATE false'),
	'', 'no template any more');

# Who may not, cannot.
start_run('d');
my $before = processes('d');
foreach my $statement (
	'DROP DATABASE d',
	'DROP DATABASE d WITH (FORCE)',
	'ALTER DATABASE d RENAME TO e',
	'ALTER DATABASE d SET TABLESPACE elsewhere',
	'ALTER DATABASE d ALLOW_CONNECTIONS false',
	'ALTER DATABASE d IS_TEMPLATE true',
	'CREATE DATABASE copy TEMPLATE d')
{
	like(
		try_as('mallory', $statement),
		qr/must be owner|permission denied/,
		"not everybody may: $statement");
}
is(processes('d'), $before, 'all processes are the same as before');

# Our own tables
foreach my $statement (
	'VACUUM FULL _taskshed.task',
	'VACUUM FULL _taskshed.alarm',
	'CLUSTER _taskshed.task USING task_pkey',
	'REINDEX SCHEMA _taskshed',
	'REINDEX DATABASE d')
{
	$node->safe_psql('d', $statement);
}
is(processes('d'), $before,
	'they are as well after VACUUM FULL and the like');
finish_run('d', 0, 'VACUUM FULL and the like');

# Databases that a scheduler cannot come into, whatever the reason: others are looked
# into after a restart.
$node->safe_psql('postgres', "CREATE DATABASE broken$_") foreach (1 .. 4);
$node->safe_psql('postgres', 'CREATE DATABASE last TEMPLATE template0');
taskshed_database($node, 'last');
my @folders = split "\n",
  $node->safe_psql('postgres',
	q{SELECT oid FROM pg_database WHERE datname LIKE 'broken%'});
$node->safe_psql('last',
	q{SELECT taskshed.add_task('note', now() + interval '5 s', '{"what": "last"}')}
);
$node->stop;
rename $node->data_dir . "/base/$_", $node->data_dir . "/base/$_.away"
  foreach @folders;
$node->start;
await(
	$node,
	'SELECT EXISTS (SELECT FROM ledger)',
	'one behind four that are broken', 'last');
like(
	slurp_file($node->logfile),
	qr/FATAL:  database "broken4" does not exist/,
	'(which they were)');

$node->stop;
done_testing();
