
# Recurring tasks run at the times of their grid, whatever happens: behind by
# five intervals they coalesce, run all or skip; many short intervals do not
# drift; months are counted in the task's own time zone.
#
# Quick: promise 6

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use TaskshedTest;
use Test::More;

my $node = taskshed_node('catch_up');

$node->safe_psql(
	'postgres', q{
CREATE ROLE app LOGIN;
CREATE FUNCTION beat(what text) RETURNS void LANGUAGE sql AS $$ SELECT note(what, planned()) $$;
CREATE TABLE at (t timestamptz);
GRANT SELECT ON at TO app});

# The times of the runs of a task, in hours after the first of its grid.
sub hours
{
	my ($what) = @_;
	return $node->safe_psql(
		'postgres', qq{
		SELECT string_agg((extract(epoch FROM planned - t) / 3600)::integer::text, ' ' ORDER BY planned)
		FROM ledger, at WHERE what = '$what'});
}

sub task
{
	my ($task_id) = @_;
	return $node->safe_psql(
		'postgres', qq{
		SELECT state, run_count, last_status, (extract(epoch FROM run_at - t) / 3600)::numeric(20, 4)
		FROM taskshed.tasks, at WHERE task_id = '$task_id'});
}

# Behind by five intervals, because they were added late, were paused, or
# the server was not there.
sub catch_up
{
	my ($how, $before, $after) = @_;

	$node->safe_psql(
		'postgres',
		q{SET ROLE app; SELECT taskshed.remove_all_tasks();
		RESET ROLE; TRUNCATE at, ledger; INSERT INTO at VALUES (now() - interval '5.5 hours')}
	);
	$before->();
	foreach my $catch_up ('coalesce', 'all', 'skip')
	{
		my $paused = $how eq 'resumed' ? 'true' : 'NULL';

		$node->safe_psql(
			'postgres',
			qq{SET ROLE app; SELECT taskshed.add_task('beat', t, '{"what": "$catch_up"}', every => '1 hour',
			task_id => '$catch_up', catch_up => '$catch_up', paused => $paused) FROM at}
		);
	}
	$after->();
	await(
		$node,
		q{SELECT NOT EXISTS (SELECT FROM taskshed.tasks WHERE state <> 'scheduled')},
		"$how: all has been caught up");
	is( task('coalesce'),
		'scheduled|1|succeeded|6.0000',
		"$how: coalesce runs once");
	is(hours('coalesce'), '0', "$how: for the first time");
	is( task('all'),
		'scheduled|6|succeeded|6.0000',
		"$how: all runs six times");
	is(hours('all'), '0 1 2 3 4 5',               "$how: once for each time");
	is(task('skip'), 'scheduled|0|missed|6.0000', "$how: skip runs never");
	is(hours('skip'), '', "$how: and has missed them");
	is( $node->safe_psql(
			'postgres', q{
			SELECT string_agg((extract(epoch FROM scheduled_at - t) / 3600)::integer::text, ' ' ORDER BY finished_at, run_id)
			FROM taskshed.runs, at
			WHERE task_id = 'skip' AND status = 'missed' AND extract(epoch FROM scheduled_at - t) % 3600 = 0}
		),
		'0 1 2 3 4 5',
		"$how: each of them is in the history");
	return;
}

catch_up('added late', sub { }, sub { });
catch_up(
	'resumed',
	sub { },
	sub {
		$node->safe_psql('postgres',
			q{SET ROLE app; SELECT taskshed.resume_tasks(array['coalesce', 'all', 'skip'])}
		);
	});
catch_up(
	'disabled',
	sub { set_and_reload($node, 'taskshed.enabled' => 'off') },
	sub {
		is($node->safe_psql('postgres', 'SELECT count(*) FROM ledger'),
			'0', 'disabled');
		set_and_reload($node, 'taskshed.enabled' => undef);
	});
catch_up(
	'restarted',
	sub { set_and_reload($node, 'taskshed.enabled' => 'off') },
	sub {
		$node->stop('immediate');
		$node->append_conf('postgresql.auto.conf', "taskshed.enabled = on\n");
		$node->start;
	});

# The first grid time after now, not now plus the interval.  (The clock has
# gone on by less than the half hour.)
is( $node->safe_psql(
		'postgres', q{
		SELECT bool_and(run_at = t + interval '6 hours') FROM taskshed.tasks, at}),
	't',
	'they go on at the next time of their grid');

# A downtime that lasts: the times before it, in it and after it.
$node->safe_psql('postgres',
	q{SET ROLE app; SELECT taskshed.remove_all_tasks()});
$node->safe_psql('postgres',
	q{TRUNCATE at, ledger; INSERT INTO at VALUES (now())});
foreach my $catch_up ('coalesce', 'all', 'skip')
{
	$node->safe_psql(
		'postgres',
		qq{SET ROLE app; SELECT taskshed.add_task('beat', t, '{"what": "$catch_up"}', every => '500 ms',
		task_id => '$catch_up', catch_up => '$catch_up') FROM at});
}
await($node, q{SELECT count(DISTINCT what) = 3 FROM ledger}, 'each has run');
set_and_reload($node, 'taskshed.enabled' => 'off');
await(
	$node,
	q{SELECT bool_and(state = 'due') FROM taskshed.tasks},
	'none is running');
my $off = $node->safe_psql('postgres', 'SELECT now()');
await(
	$node,
	"SELECT now() > '$off'::timestamptz + interval '3 s'",
	'at least five times are missed');
my $on = $node->safe_psql('postgres', 'SELECT clock_timestamp()');
set_and_reload($node, 'taskshed.enabled' => undef);
await(
	$node, qq{
	SELECT count(*) = 3 FROM (SELECT what FROM ledger
		WHERE planned > '$on' GROUP BY what HAVING count(*) >= 3) AS x},
	'all go on');
$node->safe_psql('postgres',
	q{SET ROLE app; SELECT taskshed.pause_tasks(array['coalesce', 'all', 'skip'])}
);
await(
	$node,
	q{SELECT NOT EXISTS (SELECT FROM taskshed.tasks WHERE state = 'running')},
	'none is running');
is( $node->safe_psql(
		'postgres', q{
		SELECT what, bool_and(extract(epoch FROM planned - t) * 1000 % 500 = 0),
			bool_and(started >= planned), count(*) = count(DISTINCT planned)
		FROM ledger, at GROUP BY what ORDER BY what}),
	"all|t|t|t\ncoalesce|t|t|t\nskip|t|t|t",
	'all on their grid, none early, none doubled');
is( $node->safe_psql(
		'postgres', q{
		SELECT max(planned) - min(planned) = (count(*) - 1) * interval '500 ms' FROM ledger WHERE what = 'all'}
	),
	't',
	'all: no time was left out');
is( $node->safe_psql(
		'postgres', qq{
		SELECT count(*) FROM ledger WHERE what = 'coalesce' AND planned BETWEEN '$off' AND '$on'::timestamptz - interval '500 ms'}
	),
	'0',
	'coalesce: the times missed ran as the first of them');
is( $node->safe_psql(
		'postgres', qq{
		SELECT count(*) FROM ledger WHERE what = 'skip' AND started > planned + interval '1 s'
			AND planned > '$off'}),
	'0',
	'skip: none ran too late');

# Times 10 ms apart do not drift, and a callback that takes longer does not
# pile up.
$node->safe_psql('postgres',
	q{SET ROLE app; SELECT taskshed.remove_all_tasks()});
$node->safe_psql(
	'postgres', q{
TRUNCATE at, ledger; INSERT INTO at VALUES (now());
CREATE FUNCTION slow_beat(what text) RETURNS void LANGUAGE sql AS $$
	SELECT note(what, planned());
	SELECT pg_sleep(0.025);
$$;
SET ROLE app;
SELECT taskshed.add_task('beat', t, '{"what": "short"}', every => '10 ms', task_id => 'short'),
	taskshed.add_task('beat', t, '{"what": "short all"}', every => '10 ms', task_id => 'short all', catch_up => 'all'),
	taskshed.add_task('slow_beat', t, '{"what": "slow"}', every => '10 ms', task_id => 'slow')
FROM at});
await(
	$node, q{
	SELECT count(*) = 3 FROM (SELECT FROM ledger GROUP BY what HAVING count(*) >= 100) AS x},
	'each has run a hundred times');
$node->safe_psql('postgres',
	q{SET ROLE app; SELECT taskshed.pause_tasks(array['short', 'short all', 'slow'])}
);
await(
	$node,
	q{SELECT NOT EXISTS (SELECT FROM taskshed.tasks WHERE state = 'running')},
	'none is running');
is( $node->safe_psql(
		'postgres', q{
		SELECT what, bool_and(extract(epoch FROM planned - t) * 1000 % 10 = 0),
			bool_and(started >= planned), count(*) = count(DISTINCT planned)
		FROM ledger, at GROUP BY what ORDER BY what}),
	"short|t|t|t\nshort all|t|t|t\nslow|t|t|t",
	'every 10 ms: all on their grid, none early, none doubled');
is( $node->safe_psql(
		'postgres', q{
		SELECT max(planned) - min(planned) = (count(*) - 1) * interval '10 ms' FROM ledger WHERE what = 'short all'}
	),
	't',
	'every 10 ms, all: no time was left out');
is( $node->safe_psql(
		'postgres', q{
		SELECT count(*) FROM (SELECT planned - lag(planned, 1, planned) OVER (ORDER BY started) AS step FROM ledger
			WHERE what = 'slow' AND planned > (SELECT t + interval '10 ms' FROM at)) AS x
		WHERE step > interval '0' AND step < interval '20 ms'}),
	'0',
	'a run that takes longer stands for the times it has missed');
is( $node->safe_psql(
		'postgres', q{
		SELECT count(*) FROM taskshed.tasks JOIN (SELECT what, count(*) AS n FROM ledger GROUP BY what) AS l
			ON what = task_id WHERE run_count <> n}),
	'0',
	'run_count counts the runs');
diag(
		'every 10 ms, lag: '
	  . lag_of_ledger($node, q{what = 'short'})
	  . '; of those that were to run in that time, ran: '
	  . $node->safe_psql(
		'postgres', q{
		SELECT round(100 * count(*) / (extract(epoch FROM max(planned) - min(planned)) * 100 + 1)) || ' %'
		FROM ledger WHERE what = 'short'}));

# Days and months in the zone that is stored with the task: from the anchor,
# and not from a month that had fewer days, across changes of daylight saving.
$node->safe_psql('postgres',
	q{SET ROLE app; SELECT taskshed.remove_all_tasks()});
foreach my $zone ('America/New_York', 'Europe/Berlin', 'Asia/Kolkata')
{
	$node->safe_psql(
		'postgres', qq{
		SET ROLE app;
		SET timezone = '$zone';
		SELECT taskshed.add_task('note', '2024-01-31 10:00', '{"what": "$zone"}', every => '1 month', task_id => 'month $zone');
		SELECT taskshed.add_task('note', '2024-01-31 02:30', '{"what": "$zone"}', every => '1 day', task_id => 'day $zone');
		SET timezone = 'UTC';
		SELECT taskshed.add_task('note', '2024-01-31 02:30 $zone', '{"what": "$zone"}', every => '1 day', task_id => 'named $zone',
			timezone => '$zone')});
}
await(
	$node,
	q{SELECT count(*) = 9 FROM taskshed.tasks WHERE run_count = 1 AND state = 'scheduled'},
	'all have run once');
foreach my $zone ('America/New_York', 'Europe/Berlin', 'Asia/Kolkata')
{
	my $next = q{
		SELECT run_at = (SELECT min(t) FROM (SELECT (timestamp '2024-01-31 %s' + n * interval '%s') AT TIME ZONE '%s' AS t
			FROM generate_series(0, 20000) AS n) AS x WHERE t > last_run_at)
		FROM taskshed.tasks WHERE task_id = '%s %s'};

	is( $node->safe_psql(
			'postgres',
			sprintf($next, '10:00', '1 month', $zone, 'month', $zone)),
		't',
		"$zone: months are counted there");
	is( $node->safe_psql(
			'postgres', sprintf($next, '02:30', '1 day', $zone, 'day', $zone)
		),
		't',
		"$zone: days are counted there");
	is( $node->safe_psql(
			'postgres',
			sprintf($next, '02:30', '1 day', $zone, 'named', $zone)),
		't',
		"$zone: also when it is named");
}

$node->stop;
done_testing();
