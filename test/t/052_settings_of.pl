
# ALTER DATABASE ... SET and ALTER ROLE ... SET take effect on the processes that
# are connected already, without an interruption of what they are at, and on no
# others.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use TaskshedTest;
use Test::More;

my $node = taskshed_node('settings_of',
	conf => "taskshed.worker_idle_timeout = '1h'\n");

$node->safe_psql(
	'postgres', q{
CREATE ROLE app LOGIN;
CREATE ROLE other LOGIN;
CREATE FUNCTION setting() RETURNS void LANGUAGE sql AS $$
	SELECT public.note(coalesce(current_setting('my.own', true), ''));
$$});
$node->safe_psql('postgres', 'CREATE DATABASE second');
taskshed_database($node, 'second');

# What a run of a role finds my.own to be.
sub setting_of
{
	my ($role) = @_;

	$node->safe_psql('postgres',
		"TRUNCATE ledger; SELECT taskshed.add_task('setting', owner => '$role')"
	);
	await(
		$node,
		q{SELECT EXISTS (SELECT FROM ledger) AND NOT EXISTS (SELECT FROM taskshed.tasks WHERE callback LIKE '%setting')},
		'the task has run');
	return $node->safe_psql('postgres', 'SELECT what FROM ledger');
}

sub worker_of
{
	my ($role) = @_;

	return $node->safe_psql('postgres',
		"SELECT pid FROM pg_stat_activity WHERE backend_type = 'taskshed worker' AND usename = '$role'"
	);
}

is(setting_of('app'),   '', 'no setting, app');
is(setting_of('other'), '', 'no setting, other');
my $worker = worker_of('other');

# Roles
$node->safe_psql('postgres', q{ALTER ROLE app SET my.own = 'of role'});
is(setting_of('app'), 'of role', 'ALTER ROLE');
$node->safe_psql('postgres',
	q{ALTER ROLE app IN DATABASE postgres SET my.own = 'here'});
is(setting_of('app'), 'here', 'ALTER ROLE IN DATABASE');
$node->safe_psql('postgres', 'ALTER ROLE app IN DATABASE postgres RESET ALL');
is(setting_of('app'), 'of role', 'ALTER ROLE RESET ALL');
$node->safe_psql('postgres',
	q{BEGIN; ALTER ROLE other SET my.own = 'undone'; ROLLBACK});
$node->safe_psql('postgres',
	q{ALTER ROLE other IN DATABASE second SET my.own = 'elsewhere'});
is(setting_of('other'), '', 'what is rolled back or about other databases');
is(worker_of('other'),  $worker, 'concerns no worker');

# Databases
$node->safe_psql('postgres',
	q{ALTER DATABASE postgres SET my.own = 'of all'});
is(setting_of('other'), 'of all',  'ALTER DATABASE');
is(setting_of('app'),   'of role', 'a role has precedence');
$node->safe_psql('postgres', 'ALTER ROLE ALL RESET my.own');
$node->safe_psql('postgres', 'ALTER ROLE app RESET my.own');
is(setting_of('app'), 'of all', 'ALTER ROLE RESET');

# A run in progress goes on.
my $holder = session($node);
$holder->query('SELECT pg_advisory_lock(1)');
$node->safe_psql('postgres',
	q{SELECT taskshed.add_task('hold', kwargs => '{"what": "held"}', task_id => 'held', owner => 'app')}
);
await_blocked($node, 1);
$node->safe_psql('postgres', q{ALTER DATABASE postgres SET my.own = 'new'});
is(setting_of('other'), 'new', 'it does not keep others from having theirs');
is(setting_of('app'),   'new', 'nor its own role');
$holder->query('SELECT pg_advisory_unlock(1)');
await_no_task($node, 'held');
is(runs_of($node, 'held'), 'succeeded 1', 'a run in progress goes on');
$holder->quit;

# The scheduler's own
$node->safe_psql('postgres',
	'ALTER DATABASE second SET taskshed.enabled = off');
await_status($node, 'second', 'disabled');
$node->safe_psql('second',
	q{SELECT taskshed.add_task('note', kwargs => '{"what": "later"}')});
is( $node->safe_psql(
		'postgres',
		q{SELECT state FROM taskshed.status WHERE database = 'postgres'}),
	'active',
	'another database is not concerned');
$node->safe_psql('postgres', 'ALTER DATABASE second RESET taskshed.enabled');
await_status($node, 'second', 'active');
await(
	$node,
	'SELECT EXISTS (SELECT FROM ledger)',
	'tasks run again', 'second');

$node->stop;
done_testing();
