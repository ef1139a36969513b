
# Due means started: tasks at random times each run once, none before its
# time; how late they are is printed.
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

my $node = taskshed_node('on_time');

$node->safe_psql('postgres', q{CREATE ROLE app LOGIN});

# A thousand at random times in the next 20 s: half of them in one transaction,
# half in one each, while others run already.
my $add = q{
SELECT taskshed.add_task('note', t, jsonb_build_object('what', %s || i, 'planned', t))
FROM (SELECT i, clock_timestamp() + interval '20 s' * random() AS t
	FROM generate_series(%d, %d) AS i) AS x;
};
$node->safe_psql('postgres',
		"SET ROLE app; "
	  . sprintf($add, q{'bulk '}, 1, 500)
	  . join('', map { sprintf($add, q{'single '}, $_, $_) } (1 .. 500)));

# Some at an instant, not one of them alone.
$node->safe_psql(
	'postgres', q{
SELECT count(taskshed.add_task('note', t, jsonb_build_object('what', 'together', 'planned', t), owner => 'app'))
FROM (SELECT now() + interval '1 s' AS t) AS x, generate_series(1, 50)});

await_no_task($node, '%');
is( $node->safe_psql(
		'postgres',
		q{SELECT split_part(what, ' ', 1) AS which, count(*), count(DISTINCT what) FROM ledger GROUP BY which ORDER BY which}
	),
	"bulk|500|500\nsingle|500|500\ntogether|50|1",
	'each ran once, and none for another');
is( $node->safe_psql(
		'postgres', 'SELECT count(*) FROM ledger WHERE started < planned'),
	'0',
	'none ran before its time');
diag('1000 tasks over 20 s, lag: '
	  . lag_of_ledger($node, q{what <> 'together'}));
diag('50 tasks at one instant, lag: '
	  . lag_of_ledger($node, q{what = 'together'}));

# Times carry their zone.
$node->safe_psql(
	'postgres', q{
SET ROLE app;
SELECT taskshed.add_task('note', ((now() AT TIME ZONE 'America/New_York') + interval '1 s')::text::timestamp
	AT TIME ZONE 'America/New_York', '{"what": "zone"}')});
await_no_task($node, '%');
is( $node->safe_psql(
		'postgres', q{SELECT count(*) FROM ledger WHERE what = 'zone'}),
	'1',
	'a time in another zone');

# A recurring task: each time on its grid, none early.
$node->safe_psql(
	'postgres', q{
CREATE FUNCTION beat() RETURNS void LANGUAGE sql AS $$ SELECT note('beat', planned()) $$;
SET ROLE app;
SELECT taskshed.add_task('beat', every => '200 ms', task_id => 'beat')});
await(
	$node,
	q{SELECT count(*) >= 20 FROM ledger WHERE what = 'beat'},
	'the heart has beaten 20 times');
is( $node->safe_psql(
		'postgres', q{
		SELECT bool_and(started >= planned),
			bool_and(extract(epoch FROM planned - first) * 1000 % 200 = 0),
			count(*) = count(DISTINCT planned)
		FROM ledger, (SELECT min(planned) AS first FROM ledger WHERE what = 'beat') AS x
		WHERE what = 'beat'}),
	't|t|t',
	'a heartbeat is never early, always on its grid, never doubled');
diag('a heartbeat every 200 ms, lag: '
	  . lag_of_ledger($node, q{what = 'beat'}));

$node->stop;
done_testing();
