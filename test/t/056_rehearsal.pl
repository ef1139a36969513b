
# A worker that is started ahead of time goes through the motions of its first
# run: the callback is found and its language loaded, and nothing happens.  What
# fails then is not an error, and the run tells.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use TaskshedTest;
use Test::More;

my $node = taskshed_node('rehearsal');

# Adds a task of a new role by SQL that has %s for its name, and awaits its end.
sub run_of
{
	my ($role, $sql, $status) = @_;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	$node->safe_psql(
		'postgres', qq{
CREATE ROLE $role LOGIN;
ALTER ROLE $role SET log_min_messages = debug1});
	$node->safe_psql('postgres', sprintf $sql, $role);
	await(
		$node,
		qq{SELECT count(*) = 1 FROM taskshed.runs WHERE owner = '$role' AND status = '$status'},
		"the task of $role has run once, and $status");
	return;
}

# Does so for one role after the other until a line is in the log: on a machine
# that takes long to start a process there may be no time for a rehearsal.
sub run_until
{
	my ($pattern, $role, $sql, $status) = @_;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	foreach my $try (1 .. 20)
	{
		run_of("$role$try", $sql, $status);
		return pass("the log has: $pattern")
		  if count_in_log($node, $pattern) > 0;
	}
	return fail("the log has: $pattern");
}

run_until(
	'rehearsed a run',
	'early',
	q{SELECT taskshed.add_task('note', now() + '2 s', '{"what": "early", "planned": null}', owner => '%s')},
	'succeeded');
is(count_in_log($node, 'could not rehearse a run'),
	0, 'the rehearsal had no error');
is( $node->safe_psql(
		'postgres', q{
SELECT (SELECT count(*) FROM ledger) = count(*) FROM taskshed.runs WHERE status = 'succeeded'}
	),
	't',
	'nor an effect');

run_until(
	'could not rehearse a run: callback public.gone',
	'missing', q{
BEGIN;
CREATE FUNCTION public.gone() RETURNS void LANGUAGE plpgsql AS 'BEGIN END';
SELECT taskshed.add_task('public.gone', now() + '2 s', owner => '%s');
DROP FUNCTION public.gone;
COMMIT}, 'failed');
is(count_in_log($node, 'ERROR: .*public.gone'),
	0, 'a rehearsal that fails logs no error of its own');

my $before = count_in_log($node, 'rehearsed a run');
run_of(
	'now',
	q{SELECT taskshed.add_task('note', kwargs => '{"what": "now", "planned": null}', owner => '%s')},
	'succeeded');
is(count_in_log($node, 'rehearsed a run'),
	$before, 'for a rehearsal of what is due there is no time');

$node->stop;
done_testing();
