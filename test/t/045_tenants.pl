
# Two tenants: what one has piled up, a hundred thousand due tasks that keep the
# processors busy for 5 ms each, does not keep the other's tasks from running on
# time.  How late they are is printed, alone and beside.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use TaskshedTest;
use Test::More;

my $node = taskshed_node('tenants');

$node->safe_psql(
	'postgres', q{
CREATE ROLE greedy LOGIN;
CREATE ROLE modest LOGIN;
CREATE FUNCTION busy() RETURNS void LANGUAGE plpgsql AS $$
DECLARE
	until timestamptz := clock_timestamp() + interval '5 ms';
BEGIN
	WHILE clock_timestamp() < until LOOP
	END LOOP;
END $$;
});

# The modest one's: 200 over 20 s.  Returns their lag.
sub modest
{
	my ($what) = @_;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	$node->safe_psql(
		'postgres', qq{
		SELECT count(taskshed.add_task('note', t, jsonb_build_object('what', '$what', 'planned', t), owner => 'modest'))
		FROM (SELECT clock_timestamp() + interval '20 s' * random() AS t FROM generate_series(1, 200)) AS x}
	);
	await(
		$node,
		q{SELECT NOT EXISTS (SELECT FROM taskshed.fetch_tasks(owner => 'modest'))},
		"no task is left, $what");
	is( $node->safe_psql(
			'postgres',
			"SELECT count(*), count(DISTINCT planned) FROM ledger WHERE what = '$what'"
		),
		'200|200',
		"each has run once, $what");
	return lag_of_ledger($node, "what = '$what'");
}

my $alone = modest('alone');

is( $node->safe_psql(
		'postgres',
		q{SELECT count(taskshed.add_task('busy', owner => 'greedy')) FROM generate_series(1, 100000)}
	),
	'100000',
	'the other tenant has a hundred thousand tasks');
my $beside = modest('beside');
cmp_ok(
	$node->safe_psql(
		'postgres',
		q{SELECT count(*) FROM taskshed.fetch_tasks(owner => 'greedy')}),
	'>', 0,
	'and still has some');
diag("lag alone:  $alone\nlag beside: $beside");

$node->safe_psql('postgres',
	q{SELECT taskshed.remove_all_tasks(owner => 'greedy')});
$node->stop;
done_testing();
