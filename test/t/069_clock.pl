
# The clock is set: forward, back, and to and fro.  Nothing is run twice for one
# time, nothing is left out but by catch_up, and nobody waits for a time of day
# that was near before.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use TaskshedClock;
use TaskshedTest;
use Test::More;
use Time::HiRes qw(time usleep);

my $library = clock_build();
plan skip_all => 'no C compiler' if !$library;

my $node;
{
	local $ENV{LD_PRELOAD} = $library;
	$node = taskshed_node('clock');
}

sub offset
{
	return $node->safe_psql('postgres',
		'SELECT round(extract(epoch FROM clock_timestamp()) - ' . time . ')');
}
clock_set(100);
plan skip_all => 'the clock cannot be set here' if offset() != 100;
clock_set(0);

# Adds a task.
sub add
{
	my ($task_id, $more) = @_;

	return $node->safe_psql('postgres',
		qq{SELECT taskshed.add_task('note', kwargs => '{"what": "$task_id"}', task_id => '$task_id'}
		  . (defined $more ? ", $more" : '')
		  . ')');
}

# One for now runs, and how soon.
sub runs_now
{
	my ($task_id) = @_;
	my $began = time;

	add($task_id);
	await_no_task($node, $task_id);
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	cmp_ok(time - $began, '<', 10, "$task_id runs at once");
	return;
}

# An hour forward: what was not due is, and runs without anybody's doing.
add('in half an hour', q{run_at => now() + interval '30 min'});
add('coalesce',        q{every => '10 min'});
add('all',             q{every => '10 min', catch_up => 'all'});
# (whose times are not an hour from now)
add('skip',
	q{every => '10 min', catch_up => 'skip', run_at => now() + interval '5 min'}
);
await($node, q{SELECT count(*) = 2 FROM taskshed.tasks WHERE run_count = 1},
	'two have run');

# (one in a database whose scheduler is away, too)
$node->safe_psql('postgres', 'CREATE DATABASE sleeps');
taskshed_database($node, 'sleeps');
$node->safe_psql('postgres',
	q{ALTER DATABASE sleeps SET taskshed.scheduler_idle_timeout = '1s'; ALTER DATABASE sleeps SET taskshed.worker_idle_timeout = '10ms'}
);
$node->safe_psql('sleeps',
	q{SELECT taskshed.add_task('note', now() + interval '30 min', '{"what": "away"}')}
);
await_status($node, 'sleeps', 'asleep');
my $began = time;
clock_set(3600);
await_no_task($node, 'in half an hour');
await(
	$node,
	'SELECT count(*) = 1 FROM ledger',
	'so has one that was away', 'sleeps');
cmp_ok(time - $began, '<', 75, 'within the longest sleep');
await(
	$node,
	q{SELECT bool_and(run_at > clock_timestamp()) FROM taskshed.tasks},
	'all have caught up');
is( $node->safe_psql(
		'postgres',
		q{SELECT string_agg(what || ' ' || n, ', ' ORDER BY what) FROM (SELECT what, count(*) AS n FROM ledger GROUP BY what) AS x}
	),
	'all 7, coalesce 2, in half an hour 1',
	'each by its catch_up');

# And whoever schedules wakes a scheduler that sleeps until a time that is over.
add('in an hour', q{run_at => now() + interval '30 min'});
clock_set(7200);
runs_now('forward');
await_no_task($node, 'in an hour');
$node->safe_psql('postgres',
	q{SELECT taskshed.remove_tasks(array['all', 'coalesce', 'skip']); TRUNCATE ledger}
);

# An hour back: a task of every second has run for the times of this hour.
# What has none waits for nothing.
my $holder = session($node);
set_and_reload($node, 'taskshed.max_workers' => 2);
$holder->query('SELECT pg_advisory_lock(1)');
add('seconds', q{every => '1 s'});
add('fails',   q{run_at => now() + interval '5 s'});
$node->safe_psql('postgres',
	q{SELECT taskshed.add_task('hold', kwargs => '{"what": "held"}', task_id => 'held')}
);
await_blocked($node, 1);
await($node,
	q{SELECT run_count > 1 FROM taskshed.tasks WHERE task_id = 'seconds'},
	'it runs');
clock_set(3600);
runs_now("back $_") foreach (1 .. 3);
$node->wait_for_log(qr/LOG:  the clock was set back/);
is( $node->safe_psql(
		'postgres',
		q{SELECT state, run_at > clock_timestamp() + interval '50 min' FROM taskshed.tasks WHERE task_id = 'seconds'}
	),
	'scheduled|t',
	'it waits until the clock is there again, and says so');
$node->safe_psql('postgres',
	q{SELECT taskshed.update_execution_time('seconds', clock_timestamp())});
await(
	$node,
	q{SELECT last_run_at BETWEEN clock_timestamp() - interval '10 s' AND clock_timestamp() FROM taskshed.tasks WHERE task_id = 'seconds'},
	'unless it is moved');
is( $node->safe_psql(
		'postgres',
		q{SELECT state FROM taskshed.tasks WHERE task_id = 'held'}),
	'running',
	'a run goes on');
$holder->query('SELECT pg_advisory_unlock(1)');
await_no_task($node, 'held');

# In a database whose scheduler is away, too
await_status($node, 'sleeps', 'asleep');
clock_set(0);
$node->safe_psql('sleeps',
	q{SELECT taskshed.add_task('note', kwargs => '{"what": "back"}')});
await($node, 'SELECT count(*) = 2 FROM ledger', 'it comes at once', 'sleeps');
$node->safe_psql('postgres', 'DROP DATABASE sleeps');
clock_set(3600);

# Nobody is too young to leave, or has to be waited for.
$node->safe_psql('postgres', 'CREATE ROLE app LOGIN; CREATE DATABASE second');
taskshed_database($node, 'second');
clock_set(0);
$node->safe_psql('postgres',
	q{SELECT taskshed.remove_all_tasks(); SELECT pg_terminate_backend(scheduler_pid) FROM taskshed.status}
);
runs_now('terminated');
$began = time;
$node->safe_psql('second',
	q{SELECT taskshed.add_task('note', kwargs => '{"what": "x"}', owner => 'app')}
);
await($node, 'SELECT count(*) = 1 FROM ledger', 'it runs', 'second');
$node->safe_psql('postgres', 'DROP DATABASE second');
cmp_ok(time - $began, '<', 20, 'and can be dropped');

# To and fro, while tasks run: each once for each of its times.
set_and_reload($node, 'taskshed.max_workers' => 4);
$node->safe_psql(
	'postgres', q{TRUNCATE ledger;
	CREATE FUNCTION mark(what text) RETURNS void LANGUAGE sql AS $$
		SELECT public.note(what, run_at) FROM taskshed.current_task() $$;
	SELECT taskshed.add_task('mark', kwargs => jsonb_build_object('what', 't' || i), task_id => 't' || i,
		every => '200 ms', catch_up => 'all', max_runs => 60) FROM generate_series(1, 5) AS i}
);
my $steps = 0;
while (
	$node->safe_psql('postgres', q{SELECT count(*) FROM taskshed.tasks}) > 0
	&& $steps < 200)
{
	clock_set((0, 1.5, -2, 0.3, 4, -0.4)[ $steps++ % 6 ]);
	usleep(300_000);
}
clock_set(10);
await_no_task($node, 't%');
is( $node->safe_psql(
		'postgres',
		'SELECT count(*), count(DISTINCT (what, planned)), count(DISTINCT what) FROM ledger'
	),
	'300|300|5',
	"each once for each time, $steps steps");
is( $node->safe_psql(
		'postgres',
		q{SELECT count(*) FROM (SELECT planned - lag(planned) OVER (PARTITION BY what ORDER BY planned) AS d FROM ledger) AS x WHERE d <> interval '200 ms'}
	),
	'0',
	'and none is left out');

$holder->quit;
$node->stop;
done_testing();
