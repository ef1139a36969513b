
# An alias that is pointed elsewhere again and again is there all the time, for
# those who schedule tasks of it and for the runs.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use TaskshedTest;
use Test::More;

my $node = taskshed_node('alias_moved');

# (With an index of the column that is updated, a new version is at another
# place of each index than the old one.)
$node->safe_psql(
	'postgres', q{
CREATE INDEX ON _taskshed.callback (callback);
CREATE FUNCTION one() RETURNS void LANGUAGE sql AS '';
CREATE FUNCTION two() RETURNS void LANGUAGE sql AS '';
SELECT taskshed.add_callback('moved', 'one');
CREATE PROCEDURE move(n integer) LANGUAGE plpgsql AS $$
BEGIN
	FOR i IN 1 .. n LOOP
		PERFORM taskshed.add_callback('moved', CASE WHEN i % 2 = 0 THEN 'one' ELSE 'two' END, replace_existing => true);
		COMMIT;
	END LOOP;
END $$;
-- Schedules tasks, and counts those for which there is no such callback.
CREATE PROCEDURE schedule(n integer) LANGUAGE plpgsql AS $$
DECLARE
	failed integer := 0;
BEGIN
	FOR i IN 1 .. n LOOP
		BEGIN
			PERFORM taskshed.add_task('moved', task_id => 'moved ' || i % 100);
		EXCEPTION WHEN undefined_function THEN
			failed := failed + 1;
		END;
		COMMIT;
	END LOOP;
	RAISE NOTICE '% failed', failed;
END $$;
});

my $mover     = session($node);
my $scheduler = session($node);

$mover->send('CALL move(30000)');
$scheduler->send('CALL schedule(20000)');
like(
	$scheduler->result,
	qr/NOTICE:  0 failed/,
	'those who schedule find it always');
is($mover->result, '', 'it has been moved meanwhile');
await(
	$node,
	q{SELECT count(*) FILTER (WHERE state <> 'failed') = 0 FROM taskshed.tasks},
	'all tasks have run');
is( $node->safe_psql(
		'postgres',
		'SELECT last_sqlstate, last_error, count(*) FROM taskshed.tasks GROUP BY 1, 2'
	),
	'',
	'and so do the runs');

# Whoever changes an alias waits for others who do, and for nobody else.
$node->safe_psql(
	'postgres', q{
CREATE ROLE other LOGIN;
GRANT USAGE ON SCHEMA taskshed TO other;
});
my $other = session($node);
$other->query(
	q{SET SESSION AUTHORIZATION other; SET lock_timeout = '5s'; BEGIN});
$mover->query(q{SET lock_timeout = '5s'});
$scheduler->query(
	q{BEGIN; SELECT taskshed.add_callback('moved', 'two', true), taskshed.add_callback('new', 'two')}
);
is( $other->query(
		q{SELECT taskshed.add_callback('moved', 'one'), taskshed.remove_callback('new')}
	),
	'|f',
	'another role does not wait');
is( $mover->query(
		q{SELECT taskshed.add_callback('newer', 'one'), taskshed.remove_callback('newest')}
	),
	'|f',
	'nor for another name');

# Sends the change to one session and commits what the other has changed.
sub waits
{
	my ($change, $expected) = @_;

	$mover->send("SELECT $change");
	await(
		$node,
		q{SELECT count(*) = 1 FROM pg_locks WHERE locktype = 'object' AND NOT granted},
		"$change waits for who changes the same");
	$scheduler->query('COMMIT');
	is($mover->result, $expected, "$change goes on then");
	return;
}

waits(q{taskshed.add_callback('moved', 'one', true)}, '');
$scheduler->query(q{BEGIN; SELECT taskshed.remove_callback('moved')});
waits(q{taskshed.add_callback('moved', 'one')}, '');
$scheduler->query(q{BEGIN; SELECT taskshed.remove_callback('new')});
waits(q{taskshed.remove_callback('new')}, 'f');
$other->query('COMMIT');
is( $node->safe_psql(
		'postgres',
		q{SELECT string_agg(concat_ws(' ', name, callback), ', ' ORDER BY owner = 'other', name) FROM taskshed.callbacks}
	),
	'moved public.one, newer public.one, moved public.one',
	'all is as it was left');

$_->quit foreach $mover, $scheduler, $other;
$node->stop;
done_testing();
