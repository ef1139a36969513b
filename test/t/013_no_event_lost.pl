
# "There is something to do": many sessions leave work and add the task that
# does all of it, replace_existing => false.  Whatever the moment, whoever has
# committed sees the work done: by a run that began after the commit.
#
# Quick: promises 1 and 3

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use TaskshedTest;
use Test::More;

my $node = taskshed_node('no_event_lost');

$node->safe_psql(
	'postgres', q{
CREATE ROLE app LOGIN;
CREATE TABLE event (session integer, n integer);
CREATE TABLE done (session integer, n integer);
GRANT ALL ON event, done TO app;
CREATE FUNCTION consume() RETURNS void LANGUAGE sql AS $$
	WITH taken AS (DELETE FROM event RETURNING *)
	INSERT INTO done SELECT * FROM taken;
	SELECT pg_sleep(random() * 0.002);
$$;
CREATE PROCEDURE produce(session integer, n integer, keep boolean) LANGUAGE plpgsql AS $$
BEGIN
	FOR i IN 1 .. n LOOP
		INSERT INTO event VALUES (session, i);
		PERFORM taskshed.add_task('consume', clock_timestamp(), task_id => 'consume',
			replace_existing => NOT keep);
		IF i % 10 = 0 THEN
			PERFORM pg_sleep(0.001);
		END IF;
		COMMIT;
		IF i % 7 = 0 THEN
			PERFORM pg_sleep(random() * 0.004);
		END IF;
	END LOOP;
END $$});

foreach my $keep ('true', 'false')
{
	my $how      = $keep eq 'true' ? 'kept' : 'replaced';
	my @sessions = map { session($node) } (1 .. 3);

	$node->safe_psql('postgres', 'TRUNCATE done');
	foreach my $i (0 .. 2)
	{
		$sessions[$i]->send("SET ROLE app; CALL produce($i, 1000, $keep)");
	}
	foreach my $session (@sessions)
	{
		is($session->result, '', "$how: a session has left its work");
		$session->quit;
	}
	await_no_task($node, '%');
	is( $node->safe_psql(
			'postgres',
			'SELECT count(*), count(DISTINCT (session, n)), (SELECT count(*) FROM event) FROM done'
		),
		'3000|3000|0',
		"$how: all of it is done, and done once");
}

# A session that removes the task in between takes the work with it.
my @sessions = map { session($node) } (1 .. 3);
$node->safe_psql('postgres', 'TRUNCATE done');
$sessions[$_]->send("SET ROLE app; CALL produce($_, 500, true)")
  foreach (0 .. 1);
$sessions[2]->send(
	q{SET ROLE app; DO $$ BEGIN FOR i IN 1 .. 300 LOOP
		IF taskshed.remove_task('consume') THEN
			PERFORM pg_sleep(0.001);
			WITH taken AS (DELETE FROM event RETURNING *) INSERT INTO done SELECT * FROM taken;
		END IF;
		COMMIT;
	END LOOP; END $$});
is($_->result, '', 'a session has done what it was to do')
  foreach (@sessions);
$_->quit foreach (@sessions);
await_no_task($node, '%');
is( $node->safe_psql(
		'postgres',
		'SELECT count(*), count(DISTINCT (session, n)), (SELECT count(*) FROM event) FROM done'
	),
	'1000|1000|0',
	'all is done when somebody removes the task now and then');

is($node->safe_psql('postgres', 'SELECT runs_failed FROM taskshed.status'),
	'0', 'no run has failed');
$node->stop;
done_testing();
