
# The whole set-up is shared_preload_libraries and CREATE EXTENSION: what one is
# told without the former, and that the latter is enough, in any number of
# databases, again and again.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use TaskshedTest;
use Test::More;

my $node = PostgreSQL::Test::Cluster->new('preload');
my ($rc, $out, $err);

$node->init;
$node->append_conf('postgresql.conf',
	"log_statement = none\nmax_worker_processes = 20\n");
$node->start;

# Runs a command that fails and returns what it says.
sub failure
{
	my ($sql, $database) = @_;

	($rc, $out, $err) =
	  $node->psql($database || 'postgres', "\\set VERBOSITY verbose\n$sql");
	isnt($rc, 0, "without preload: $sql");
	return $err;
}

my $hint =
  qr/ERROR:  55000: .*HINT:  .*shared_preload_libraries = 'taskshed'.*postgresql\.conf|ERROR:  55000: .*HINT:  .*postgresql\.conf.*shared_preload_libraries = 'taskshed'/s;

# Without preload.
like(failure('CREATE EXTENSION taskshed'),
	$hint, 'CREATE EXTENSION says what to put where');
is($node->psql('postgres', q{LOAD 'taskshed'}, stderr => \$err),
	0, 'LOAD works');
is($err, '', 'and says nothing');
($rc, $out, $err) =
  $node->psql('postgres', "LOAD 'taskshed'; CREATE EXTENSION taskshed");
like($err, qr/shared_preload_libraries/, 'but it is not enough');
is( $node->safe_psql(
		'postgres',
		q{SELECT count(*) FROM pg_extension WHERE extname = 'taskshed'}),
	'0',
	'the extension is not there');
is( $node->safe_psql(
		'postgres',
		q{SELECT count(*) FROM pg_stat_activity WHERE backend_type LIKE 'taskshed%'}
	),
	'0',
	'nor are its processes');

# With it.
$node->append_conf('postgresql.conf',
	"shared_preload_libraries = 'taskshed'\n");
$node->restart;
await(
	$node,
	q{SELECT count(*) = 1 FROM pg_stat_activity WHERE backend_type = 'taskshed launcher'},
	'the launcher is there');
taskshed_database($node, 'postgres');
await(
	$node,
	q{SELECT state = 'active' FROM taskshed.status},
	'CREATE EXTENSION has started a scheduler');

# Several databases, each with its own tasks and a scheduler of its own.
my @databases = ('postgres', 'one', 'two', 'th"ree');
$node->safe_psql('postgres',
	'CREATE ROLE app LOGIN; CREATE DATABASE one; CREATE DATABASE two');
$node->safe_psql('postgres', 'CREATE DATABASE "th""ree"');
$node->safe_psql('postgres', 'CREATE DATABASE without');
my @schedulers = ();
foreach my $database (@databases)
{
	taskshed_database($node, $database) unless $database eq 'postgres';
	$node->safe_psql(
		$database, q{
		SET ROLE app;
		SELECT taskshed.add_task('note', kwargs => jsonb_build_object('what', current_database()));
		SELECT taskshed.add_task('note', kwargs => jsonb_build_object('what', 'daily ' || current_database()),
			every => '1 day', task_id => 'daily')});
}
foreach my $database (@databases)
{
	await(
		$node,
		q{SELECT count(*) = 2 AND bool_and(what IN (current_database(), 'daily ' || current_database())) FROM ledger},
		"$database has run its own tasks",
		$database);
}
is( $node->safe_psql(
		'postgres',
		q{SELECT string_agg(database, ' ' ORDER BY database) FROM taskshed.status WHERE state = 'active'}
	),
	'one postgres th"ree two',
	'the status shows all of them');
is( $node->safe_psql(
		'postgres', 'SET ROLE app; SELECT database FROM taskshed.status'),
	'postgres',
	'but to a role without pg_read_all_stats only its own');
is( $node->safe_psql(
		'postgres', q{
		SELECT count(*), count(DISTINCT datname) FROM pg_stat_activity WHERE backend_type = 'taskshed scheduler'}
	),
	'4|4',
	'each has one scheduler');

# After a restart all go on, also without anybody who connects.
$node->safe_psql($_,
	q{SET ROLE app; SELECT taskshed.add_task('note', now() + interval '1 s', '{"what": "later"}', task_id => 'later')}
) foreach (@databases);
$node->restart;
await(
	$node,
	q{SELECT count(*) = 1 FROM ledger WHERE what = 'later'},
	"$_ has gone on after a restart", $_) foreach (@databases);
await(
	$node, q{
	SELECT string_agg(database, ' ' ORDER BY database) = 'one postgres th"ree two' AND bool_and(state IN ('active', 'asleep'))
	FROM taskshed.status},
	'databases without the extension are not served');
is( $node->safe_psql(
		'postgres',
		q{SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'taskshed scheduler' AND datname = 'without'}
	),
	'0',
	'there is no scheduler where there is no extension');

# DROP EXTENSION ends it, with all that is scheduled and while it works.
$node->safe_psql(
	'postgres', q{
SET ROLE app;
SELECT taskshed.add_task('note', every => '10 ms', kwargs => '{"what": "often"}');
SELECT count(taskshed.add_task('note', now() + interval '1 s' * random(), '{"what": "some"}')) FROM generate_series(1, 1000)}
);
await($node, q{SELECT count(*) > 10 FROM ledger WHERE what = 'often'},
	'tasks flow');
my $log = -s $node->logfile;
$node->safe_psql('postgres', 'DROP EXTENSION taskshed');
await(
	$node, q{
	SELECT count(*) = 0 FROM pg_stat_activity
	WHERE datname = 'postgres' AND backend_type IN ('taskshed scheduler', 'taskshed worker')},
	'DROP EXTENSION has ended scheduler and workers');
my $count = $node->safe_psql('postgres', 'SELECT count(*) FROM ledger');
unlike(slurp_file($node->logfile, $log),
	qr/ERROR|FATAL|PANIC|TRAP/, 'without a complaint');
$node->safe_psql('postgres',
	'CREATE EXTENSION taskshed; GRANT USAGE ON SCHEMA taskshed TO PUBLIC');
$node->safe_psql('postgres',
	q{SET ROLE app; SELECT taskshed.add_task('note', kwargs => '{"what": "again"}')}
);
await(
	$node,
	q{SELECT count(*) = 1 FROM ledger WHERE what = 'again'},
	'created again, it runs tasks');
is($node->safe_psql('postgres', 'SELECT count(*) FROM ledger'),
	$count + 1, 'and not those of before');

# Created and dropped in transactions that are rolled back.
$node->safe_psql('postgres', 'BEGIN; DROP EXTENSION taskshed; ROLLBACK');
$node->safe_psql('without',  'BEGIN; CREATE EXTENSION taskshed; ROLLBACK');
$node->safe_psql('postgres',
	q{SET ROLE app; SELECT taskshed.add_task('note', kwargs => '{"what": "still"}')}
);
await(
	$node,
	q{SELECT count(*) = 1 FROM ledger WHERE what = 'still'},
	'a DROP EXTENSION that is rolled back');
foreach my $i (1 .. 5)
{
	$node->safe_psql('without', 'CREATE EXTENSION taskshed');
	$node->safe_psql('without', 'DROP EXTENSION taskshed');
}
taskshed_database($node, 'without');
$node->safe_psql('without',
	q{SELECT taskshed.add_task('note', kwargs => '{"what": "at last"}')});
await(
	$node,
	q{SELECT count(*) = 1 FROM ledger WHERE what = 'at last'},
	'created and dropped many times', 'without');

# A server that has lost the preload: the data is there, and what one is told.
$node->append_conf('postgresql.conf', "shared_preload_libraries = ''\n");
$node->restart;
foreach my $call (
	q{SELECT taskshed.add_task('note', kwargs => '{"what": "x"}')},
	q{SELECT taskshed.add_tasks('[{"callback": "note", "kwargs": {"what": "x"}}]')},
	q{SELECT taskshed.pause_task('daily')},
	q{SELECT taskshed.remove_tasks(array['daily'])},
	q{SELECT taskshed.remove_all_tasks()},
	q{SELECT taskshed.update_execution_time('daily', now())},
	q{SELECT taskshed.fetch_task('daily')},
	q{SELECT taskshed.next_wakeup()})
{
	like(failure($call, 'one'), $hint, 'one is told what to put where');
}
is($node->safe_psql('one', q{SELECT task_id FROM taskshed.tasks}),
	'daily', 'the tasks are still there');
is( $node->safe_psql(
		'one', q{
		SET ROLE app;
		SELECT database, state, scheduler_pid, due, message FROM taskshed.status}
	),
	'one|not loaded|||taskshed is not in shared_preload_libraries, so tasks wait',
	'and the status says why they wait');
like(
	failure(q{DELETE FROM taskshed.tasks}, 'one'),
	qr/ERROR:  55000: cannot delete from view "tasks"\nHINT:  Use taskshed\.remove_task, /,
	'and a view cannot be written to');
$node->safe_psql('without', 'DROP EXTENSION taskshed');
$node->append_conf('postgresql.conf',
	"shared_preload_libraries = 'taskshed'\n");
$node->restart;
$node->safe_psql('one',
	q{SELECT taskshed.update_execution_time('daily', now(), 'app')});
await(
	$node,
	q{SELECT count(*) = 2 FROM ledger WHERE what = 'daily one'},
	'with the preload they run again', 'one');

$node->stop;
done_testing();
