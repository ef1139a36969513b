
# Faults for a server that is at work: processes killed and terminated, runs
# cancelled, the server stopped and started, in a random order that a seed
# repeats.

package TaskshedFaults;

use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time usleep);

# What can happen, and how often in comparison.
my %weights = (
	'kill worker'         => 4,
	'kill scheduler'      => 2,
	'kill launcher'       => 1,
	'immediate stop'      => 3,
	'fast stop'           => 3,
	'terminate worker'    => 4,
	'terminate scheduler' => 2,
	'terminate launcher'  => 1,
	'cancel worker'       => 4);

# Parameters: without => a kind of fault that is not wanted.
sub new
{
	my ($class, $node, $seed, %params) = @_;
	my %weights = %weights;

	delete $weights{ $params{without} } if defined $params{without};
	srand($seed);
	return bless {
		node   => $node,
		kinds  => [ map { ($_) x $weights{$_} } sort keys %weights ],
		fresh  => [ sort keys %weights ],
		counts => { map { $_ => 0 } keys %weights }
	}, $class;
}

# The result of a query, however often it takes to get one that is not empty:
# the server may be about to start, or what is asked for not be there yet.
sub ask
{
	my ($node, $query) = @_;
	my $end = time + 2 * $PostgreSQL::Test::Utils::timeout_default;

	while (time < $end)
	{
		# (psql may be gone before it has read the query)
		my ($rc, $out) = eval { $node->psql('postgres', $query) };

		return $out if defined $rc && $rc == 0 && defined $out && $out ne '';
		usleep(20_000);
	}
	die "no answer to: $query";
}

# Waits until a condition is true, however often the server crashes meanwhile.
sub await_through_crashes
{
	my ($node, $condition) = @_;

	ask($node, "SELECT x FROM (SELECT $condition) AS y(x) WHERE x");
	return;
}

# Does something bad, and returns what.  Each kind comes once before any comes
# again.  When this returns the server accepts connections.
sub strike
{
	my ($self) = @_;
	my $node   = $self->{node};
	my @fresh  = @{ $self->{fresh} };
	my $kind =
		@fresh
	  ? $fresh[ int(rand(@fresh)) ]
	  : $self->{kinds}[ int(rand(@{ $self->{kinds} })) ];

	$self->{fresh} = [ grep { $_ ne $kind } @fresh ];
	$self->{counts}{$kind}++;
	if ($kind =~ /^(\w+) stop$/)
	{
		$node->stop($1);
		$node->start;
	}
	elsif ($kind =~ /^kill (\w+)$/)
	{
		my $pid = $self->victim($1);
		my $log = -s $node->logfile;

		kill 'KILL', $pid;
		$node->wait_for_log(
			qr/database system is ready to accept connections/, $log);
	}
	elsif ($kind =~ /^(terminate|cancel) (\w+)$/)
	{
		my $pid = $self->victim($2);

		$node->safe_psql('postgres', "SELECT pg_${1}_backend($pid)");
	}
	return $kind;
}

# The process id of one of that type, a worker that is busy if there is one.
sub victim
{
	my ($self, $type) = @_;

	return ask(
		$self->{node}, qq{
		SELECT pid FROM pg_stat_activity
		WHERE backend_type = 'taskshed $type'
		ORDER BY (pid IN (SELECT worker_pid FROM taskshed.tasks)) DESC, random() LIMIT 1}
	);
}

# How often what has happened.
sub counts
{
	my ($self) = @_;
	my $counts = $self->{counts};
	my $n      = 0;

	$n += $_ foreach values %$counts;
	return ($n,
		"$n faults: "
		  . join(', ', map { "$_ $counts->{$_}" } sort keys %$counts));
}

# How long after the server had begun to accept connections the next run
# began, by a table with a column "started": "median ..., max ... ms".
sub resumed
{
	my ($self, $table) = @_;
	my $log = slurp_file($self->{node}->logfile);
	my @ready =
	  $log =~ /^(\S+ \S+ \S+) \[.*database system is ready to accept/mg;

	return $self->{node}->safe_psql(
		'postgres', q{
		SELECT format('median %s, max %s ms', round(p[1]::numeric), round(p[2]::numeric))
		FROM (SELECT percentile_cont(ARRAY[0.5, 1]) WITHIN GROUP (ORDER BY extract(epoch FROM
				(SELECT min(started) FROM } . $table
		  . q{ WHERE started > ready) - ready) * 1000)
			FROM unnest(ARRAY[}
		  . join(',', map { "'$_'" } @ready) . q{]::timestamptz[]) AS ready
			WHERE ready > (SELECT min(started) FROM } . $table . q{)) AS x(p)});
}

1;
