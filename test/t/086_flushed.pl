
# By default the commit of a run does not wait for the disk.  When the workers have nothing more to do,
# what they have committed last is flushed at once, and not when the server's walwriter comes to it.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use TaskshedTest;
use Test::More;

my $node = taskshed_node('flushed', conf => "autovacuum = off\n");

# Without the walwriter nobody else flushes what commits that do not wait have written.
my $walwriter =
  query(q{SELECT pid FROM pg_stat_activity WHERE backend_type = 'walwriter'});
ok(kill('STOP', $walwriter), 'the walwriter is stopped');

# A run writes down how far the WAL was when it wrote its effect; its commit comes behind that.
query(
	q{CREATE TABLE marks (burst integer, lsn pg_lsn DEFAULT pg_current_wal_insert_lsn());
	CREATE FUNCTION mark(burst integer) RETURNS void LANGUAGE sql AS 'INSERT INTO public.marks VALUES (burst)'}
);
foreach my $n (1, 100)
{
	query(
		qq{SELECT count(taskshed.add_task('mark', kwargs => '{"burst": $n}')) FROM generate_series(1, $n)}
	);
	await(
		$node,
		"SELECT count(*) = $n AND max(lsn) < pg_current_wal_flush_lsn() FROM marks WHERE burst = $n",
		"a burst of $n is flushed");
}

kill('CONT', $walwriter);
no_crash($node);
$node->stop;
done_testing();
