
# After a shortage tasks run at once.  Where there is no room for any more locks, no
# process can connect to a database: neither a client, nor a scheduler, nor a worker.
# Those are started again once a second, and not later each time, as they are where
# something does not mend itself: however long it has lasted, tasks run within
# seconds when the first client gets in.  (The limits below are much less than the
# minute that is between two starts after some bad ones.)

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use TaskshedTest;
use Test::More;
use Time::HiRes qw(time usleep);

# (With log_min_messages = log the log tells of no errors, which must be seen all the same.)
my $node = taskshed_node(
	'shortage', conf => q{
log_min_messages = log
max_locks_per_transaction = 10
max_connections = 20
taskshed.worker_idle_timeout = '1s'
});
my $starts = 6;

$node->safe_psql('postgres', 'CREATE ROLE app LOGIN');
my $scheduler =
  q{SELECT pid FROM pg_stat_activity WHERE backend_type = 'taskshed scheduler'};

# Takes all locks that there are but some.
my $greedy = session($node);
my $victim = session($node);

sub take_locks
{
	my ($but) = @_;

	$greedy->query(
		qq{DO \$\$
		DECLARE
			n integer := current_setting('taken.n');
		BEGIN
			LOOP
				BEGIN
					PERFORM pg_advisory_lock(n);
				EXCEPTION WHEN out_of_memory THEN
					EXIT;
				END;
				n := n + 1;
			END LOOP;
			PERFORM pg_advisory_unlock(i) FROM generate_series(n - $but, n - 1) AS i;
			PERFORM set_config('taken.n', (n - $but)::text, false);
		END \$\$});
	return;
}

sub give_locks_back
{
	return $greedy->query(
		q{SET taken.n = 0; SELECT pg_advisory_unlock_all()});
}

# The launcher needs locks as well, but fewer; so there is a number of them, not
# always the same one, with which it can start others in vain.
sub await_refused
{
	my ($who, $log) = @_;
	my $begin = time;
	my $end   = $begin + $PostgreSQL::Test::Utils::timeout_default;
	my $but   = 0;
	my $n     = 0;
	my $since = $begin;

	until ($n >= $starts)
	{
		return fail("a $who is refused $starts times") if time > $end;
		take_locks($but);
		usleep(100_000);
		my $refused =
		  count_in_log($node,
			qr/background worker "taskshed $who.*exited with exit code 1$/m,
			$log);
		if ($refused > $n)
		{
			$n     = $refused;
			$since = time;
		}
		elsif ($n == 0 && time - $since > 3)
		{
			$but++;
			$since = time;
		}
	}
	diag("a $who is refused with $but locks");
	return pass("a $who is refused $starts times");
}

# A task of that role runs soon.
sub runs_soon
{
	my ($what, $more) = @_;
	my $begin = time;

	$node->safe_psql('postgres',
		qq{SELECT taskshed.add_task('note', kwargs => '{"what": "$what"}'$more)}
	);
	await(
		$node,
		"SELECT EXISTS (SELECT FROM ledger WHERE what = '$what')",
		"a task runs after $what");
	return cmp_ok(time - $begin, '<', 15, 'soon');
}

$greedy->query('SET taken.n = 0');
await($node, "SELECT EXISTS ($scheduler)", 'there is a scheduler');
my $log = -s $node->logfile;
my $pid = $node->safe_psql('postgres', $scheduler);
take_locks(0);
kill 'TERM', $pid;
$node->wait_for_log(qr/\(PID $pid\) exited with exit code 1/, $log);
$log = -s $node->logfile;
await_refused('scheduler', $log);
give_locks_back();
runs_soon('a scheduler could not start', q{});

# A role's workers, while the scheduler is there
$node->poll_query_until('postgres',
	q{SELECT count(*) = 0 FROM pg_stat_activity WHERE backend_type = 'taskshed worker'}
);
$log = -s $node->logfile;
$victim->query(
	q{SELECT taskshed.add_task('note', now() + interval '2 s', kwargs => '{"what": "waits"}', owner => 'app')}
);
await_refused('worker', $log);
give_locks_back();
runs_soon('a worker could not start', q{, owner => 'app'});
await(
	$node,
	q{SELECT EXISTS (SELECT FROM ledger WHERE what = 'waits')},
	'what was due meanwhile has run');

$greedy->quit;
$victim->quit;
$node->stop;
done_testing();
