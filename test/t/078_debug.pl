
# At debug1 the log says what our processes decide, and why; at debug2 what they do
# with single tasks.  Here it is one life of a scheduler, from when it comes to when
# it leaves, and what a default server says of the same: nothing.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use TaskshedTest;
use Test::More;
use Time::HiRes qw(usleep);

my $node = taskshed_node(
	'debug', conf => q{
log_min_messages = debug2
taskshed.scheduler_idle_timeout = '1s'
taskshed.worker_idle_timeout = '1s'
});

query('CREATE ROLE app LOGIN');
my $role = query(q{SELECT 'app'::regrole::oid});
my $database =
  query('SELECT oid FROM pg_database WHERE datname = current_database()');

# What the log says of us since some place, one line each: who, and what.
sub said
{
	my ($log) = @_;

	return join "\n",
	  map { /taskshed (\w+) DEBUG:  taskshed: (.*)/ ? "$1: $2" : () }
	  split /\n/, slurp_file($node->logfile, $log);
}

# Waits until the lines are there, in that order.
sub await_said
{
	my ($log, $what, @lines) = @_;
	my $pattern = join '\n(?:.*\n)*?', @lines;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	foreach (1 .. 10 * $PostgreSQL::Test::Utils::timeout_default)
	{
		return pass($what) if said($log) =~ /^$pattern$/m;
		usleep(100_000);
	}
	diag(said($log));
	return fail($what);
}

await(
	$node,
	q{SELECT state = 'asleep' AND scheduler_pid IS NULL FROM taskshed.status},
	'the scheduler is away');

# One task, and the life of the scheduler that it brings
my $time = '\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\S*';
my $log  = -s $node->logfile;
query(
	q{SELECT taskshed.add_task('note', kwargs => '{"what": "secret value"}', task_id => 'visible', owner => 'app')}
);
my $id = '\d+';
# (in the order that each process has for itself)
await_said(
	$log,
	'the part of the launcher',
	"launcher: database $database has slept for long enough",
	"launcher: launcher starts the scheduler of database $database",
	"launcher: launcher starts a worker of role $role in database $database");
await_said(
	$log,
	'the life of a scheduler',
	"scheduler: scheduler has come to database \"postgres\" with OID $database",
	'scheduler: scheduler reads the queue again from -infinity',
	"scheduler: scheduler asks for a worker of role $role, for task $id at $time",
	"scheduler: worker \\d+ of role $role is ready",
	"scheduler: scheduler hands task $id to worker \\d+",
	'scheduler: scheduler waits until infinity',
	'scheduler: worker \d+ has gone',
	'scheduler: database sleeps until infinity',
	'scheduler: scheduler leaves: it has had nothing to do for a while');
await_said(
	$log,
	'the life of a worker',
	"worker: worker has come for role $role",
	"worker: worker takes task $id",
	'worker: worker leaves: it has had nothing to do for a while');
unlike(slurp_file($node->logfile, $log) =~ s/.*client backend.*\n//gr,
	qr/secret/, 'nothing of the values of kwargs');

# Notes that find it there; a worker that is sent away, for another role
query('CREATE ROLE other LOGIN');
my $other = query(q{SELECT 'other'::regrole::oid});
set_and_reload(
	$node,
	'taskshed.max_workers'            => 1,
	'taskshed.worker_idle_timeout'    => '1d',
	'taskshed.scheduler_idle_timeout' => '1d');
$log = -s $node->logfile;
query(
	q{SELECT taskshed.add_task('note', kwargs => '{"what": "first"}', owner => 'app')}
);
await($node, q{SELECT count(*) = 1 FROM ledger WHERE what = 'first'},
	'it runs');
query(
	q{SELECT taskshed.add_task('note', kwargs => '{"what": "second"}', owner => 'other')}
);
await_said(
	$log,
	'a worker is sent away',
	"scheduler: worker \\d+ of role $role is ready",
	'scheduler: scheduler takes 1 notes',
	"scheduler: scheduler sends worker \\d+ of role $role away: its place is for another role",
	"scheduler: scheduler asks for a worker of role $other, for task $id at $time",
	"scheduler: worker \\d+ of role $other is ready",
	"scheduler: scheduler hands task $id to worker \\d+");
await_said($log, 'and goes',
	'worker: worker leaves: it was sent away, or cannot go on');

# A scheduler that leaves for another reason, and a task that is put off since it was
# interrupted again
query(
	q{
	CREATE FUNCTION ends() RETURNS void LANGUAGE plpgsql AS $$
	BEGIN
		PERFORM pg_terminate_backend(pg_backend_pid());
		PERFORM pg_sleep(600);
	END $$;
	SELECT taskshed.add_task('ends', task_id => 'ends', owner => 'other')});
$id = query(q{SELECT id FROM _taskshed.task WHERE task_id = 'ends'});
await_said(
	$log,
	'a task is put off',
	"scheduler: task $id has lost its worker \\d+",
	"scheduler: task $id has lost its worker \\d+",
	"scheduler: task $id is put off until $time: it was interrupted again");
query(q{SELECT taskshed.remove_task('ends', 'other')});
query('ALTER DATABASE postgres SET taskshed.max_workers = 2');
await_said(
	$log,
	'a scheduler leaves for its settings',
	'scheduler: scheduler leaves: settings of the database have changed',
	'scheduler: scheduler has come to database "postgres" with OID \d+');
query('DROP EXTENSION taskshed CASCADE');
await_said(
	$log,
	'or for the extension',
	'scheduler: scheduler leaves: there is no extension');

# And nobody hears of any of that who has not asked for it.
$node->append_conf('postgresql.conf', 'log_min_messages = info');
$node->restart;
$log = -s $node->logfile;
query(
	q{CREATE EXTENSION taskshed;
	SELECT taskshed.add_task('note', kwargs => '{"what": "third"}', owner => 'app')}
);
await($node, q{SELECT count(*) = 1 FROM ledger WHERE what = 'third'},
	'a task runs');
is(said($log), '', 'and the log says nothing of it');

$node->stop;
done_testing();
