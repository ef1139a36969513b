
# 256 databases of a server can have tasks, and then no other.  Scheduling there is
# an error that says what helps; and what helps takes effect at once: who removes or
# pauses the last task of a database that sleeps frees its place.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use TaskshedTest;
use Test::More;
use Time::HiRes qw(usleep);

my $N    = 256;
my $node = taskshed_node(
	'all_entries', conf => q{
max_prepared_transactions = 2
taskshed.scheduler_idle_timeout = 0
taskshed.worker_idle_timeout = 0
});

# One more and some that are to have the places of others
my @databases = map { "d$_" } 1 .. $N - 1;
my @more      = map { "more$_" } 1 .. 4;
my $add =
  q{SELECT taskshed.add_task('note', '2100-01-01', '{"what": "some day"}', task_id => 'last')};

$node->safe_psql('postgres', $add);
$node->safe_psql('postgres', 'CREATE DATABASE model');
$node->safe_psql('model',    'CREATE EXTENSION taskshed');
$node->safe_psql('model',
	'CREATE FUNCTION note(what text) RETURNS void LANGUAGE sql AS $$ $$');
$node->safe_psql('postgres', 'ALTER DATABASE model IS_TEMPLATE true');
foreach my $database (@databases, @more)
{
	$node->safe_psql('postgres', "CREATE DATABASE $database TEMPLATE model");
	$node->safe_psql($database,  $add) if $database =~ /^d/;
}
await(
	$node,
	"SELECT count(*) = $N AND bool_and(state = 'asleep' AND scheduler_pid IS NULL) FROM taskshed.status WHERE next_wakeup IS NOT NULL",
	"$N databases have tasks, and sleep");

my ($rc, $out, $err) = $node->psql($more[0], "\\set VERBOSITY verbose\n$add");
like(
	$err,
	qr/53400: +taskshed serves at most $N databases of a server\nHINT: +Drop the extension, or the tasks, in databases/,
	'scheduling in another one is an error, with a hint');
is($node->safe_psql($more[0], q{SELECT taskshed.remove_task('last')}),
	'f', 'what needs no place is none');

# (A place that is free may be in use for a moment, to look into a database that had
# none.)
sub can_schedule
{
	my ($database) = @_;
	my $end = time + $PostgreSQL::Test::Utils::timeout_default;

	while ($node->psql($database, $add))
	{
		return 0 if time > $end;
		usleep(100_000);
	}
	return 1;
}

my @ways = (
	q{SELECT taskshed.remove_task('last')},
	q{SELECT taskshed.pause_task('last')},
	q{SELECT taskshed.remove_all_tasks()},
	q{BEGIN; SELECT taskshed.remove_task('last'); PREPARE TRANSACTION 'p'; COMMIT PREPARED 'p'}
);
foreach my $i (0 .. $#ways)
{
	my ($from, $to) = ($databases[ 10 * $i ], $more[$i]);

	# others keep it from no place, and it gives its own to nobody by that
	$node->safe_psql(
		$from,
		q{SELECT taskshed.add_task('note', '2100-01-02', '{"what": "other"}', task_id => 'first removed');
		SELECT taskshed.remove_task('first removed')});
	await(
		$node,
		qq{SELECT next_wakeup BETWEEN '2099-12-31' AND '2100-01-01' AND state = 'asleep' FROM taskshed.status WHERE database = '$from'},
		"$from sleeps");

	$node->safe_psql($from, $ways[$i]);
	await(
		$node,
		qq{SELECT count(*) = 0 FROM taskshed.status WHERE database = '$from' AND (next_wakeup IS NOT NULL OR state <> 'asleep')},
		"nothing wakes it any more after $ways[$i]");
	await(
		$node,
		qq{SELECT NOT EXISTS (SELECT FROM taskshed.status WHERE database = '$from' AND scheduler_pid IS NOT NULL)},
		'and nobody is there');
	ok(can_schedule($to), "$to has its place");
}

# It is the same with whatever else has the first task not be due.
my %later = (
	q{SELECT taskshed.update_execution_time('last', '2200-01-01')} => 't',
	q{SELECT taskshed.update_tasks('{"run_at": "2200-01-01"}', ARRAY['last'])}
	  => 't',
	q{SELECT taskshed.add_task('note', '2200-01-01', '{"what": "last"}', task_id => 'last')}
	  => 't',
	q{SELECT taskshed.add_task('note', '2100-01-01', '{"what": "last"}', task_id => 'last', paused => true)}
	  => '');
my $n = 100;
foreach my $call (sort keys %later)
{
	my $database = $databases[ $n++ ];

	await(
		$node,
		qq{SELECT next_wakeup < '2101-01-01' AND state = 'asleep' FROM taskshed.status WHERE database = '$database'},
		"$database sleeps");
	$node->safe_psql($database, $call);
	ok( $node->poll_query_until(
			'postgres',
			qq{SELECT next_wakeup > '2199-12-30' FROM taskshed.status WHERE database = '$database' AND state = 'asleep'},
			$later{$call}),
		"the wake-up is moved by $call");
}

$node->stop;
done_testing();
