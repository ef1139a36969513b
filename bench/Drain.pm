
# How fast a backlog is worked off.
#
# All tasks are due before the first may start.  taskshed begins without any
# worker, so starting them counts; it runs each task in a transaction of its own
# and writes a record of each run.  The limit beside it does neither: a loop in
# SQL that takes the same rows a hundred at a time, in as many sessions, with
# one commit (which waits for the disk) for the hundred.  Written as one statement
# a batch, which no scheduler could do since it must know the function beforehand
# and one that fails takes the whole batch along, it is faster still.
#
# The peers run what is the same for them: nothing, a JavaScript function that
# returns at once, where taskshed calls an empty function of PL/pgSQL; and one
# INSERT a task.  They get fewer tasks, or so many seconds, since the rate is
# what is compared.  CPU is that of all processes of the server, and does not
# have the peers' own processes in it: these are in the notes.

package Drain;

use strict;
use warnings;
use utf8;

use Bench;
use Contestants;
use List::Util qw(max);
use Server;

my @peers = (
	[ 'graphile-worker, best settings', 'graphile', 1 ],
	[ 'graphile-worker, defaults',      'graphile', 0 ],
	[ 'pg-boss, best settings',         'pgboss',   1 ],
	[ 'pg-boss, defaults',              'pgboss',   0 ]);

sub measure
{
	my $n         = $size{drain};
	my %rate_goal = (noop => 100_000, effect => 80_000);

	foreach my $callback ('noop', 'effect')
	{
		my $what =
		  $callback eq 'noop'
		  ? 'drain, no-op'
		  : 'drain, callback inserts a row';
		my @contestants = (
			taskshed => sub { drain(database('taskshed'), $n, $callback) },
			limit    => sub { drain_plain($n, $callback, 'loop') },
			set      => sub { drain_plain($n, $callback, 'set') });

		foreach my $peer (@peers)
		{
			my ($who, $name, $best) = @$peer;
			push @contestants, $who => sub {
				return if $quick && !$best && $_[0] > 1;
				return drain_peer($name, $size{drain_peers}, $callback,
					$best);
			};
		}
		if ($callback eq 'effect')
		{
			push @contestants, 'taskshed, synchronous_commit = on' => sub {
				configure('taskshed.synchronous_commit' => 'on');
				my $figures =
				  eval { drain(database('taskshed'), $n, $callback) };
				my $error = $@;
				configure('taskshed.synchronous_commit' => undef);
				return $figures || die $error;
			};
			push @contestants, pg_cron => sub {
				die "not installed\n" if !$have{pg_cron};
				return                if $quick && $_[0] > 1;
				return drain_cron($size{cron});
			};
		}
		rates($what, $callback, $rate_goal{$callback},
			alternate(@contestants));
	}
	return;
}

sub rates
{
	my ($what, $callback, $goal, $figures) = @_;
	my $own    = field($figures->{taskshed}, 'rate');
	my $limit  = field($figures->{limit},    'rate');
	my @others = grep { !/^(taskshed|limit|set)$/ } keys %$figures;
	my %common =
	  (part => 'drain', what => $what, unit => 'tasks/s', chart => $what);

	row(%common,
		who        => 'taskshed',
		values     => $own,
		goal       => [ '>=', $goal ],
		ratio      => ratios($own, $limit),
		to         => 'the limit',
		ratio_goal => $callback eq 'noop' ? [ '>=', 0.5 ] : undef);
	row(%common,
		who    => "limit: SQL loop, batches of 100, $cores sessions",
		values => $limit);
	row(%common,
		who    => 'limit: the same, one statement a batch',
		values => field($figures->{set}, 'rate'),
		ratio  => ratios(field($figures->{set}, 'rate'), $own),
		to     => 'taskshed');

	foreach my $who (sort @others)
	{
		my $rate = field($figures->{$who}, 'rate');

		row(%common,
			who    => $who,
			values => $rate,
			ratio  => ratios($rate, $own),
			to     => 'taskshed');
	}
	return if $callback eq 'noop';

	# The best peer of each round
	my @peers = grep { !/^taskshed/ && ref $figures->{$_} } @others;
	my $best  = [
		map {
			my $round = $_;
			max(0,
				map {
						$round < @{ $figures->{$_} }
					  ? $figures->{$_}[$round]{rate}
					  : ()
				} @peers) || ();
		} 0 .. (ref $own && @peers ? $#$own : -1)
	];
	row(part   => 'drain',
		what   => $what,
		who    => 'taskshed / best peer',
		values => @$best
		? ratios($own, $best)
		: 'there is no peer to compare with',
		unit => '×',
		goal => [ '>=', 6 ]);

	foreach my $who ('taskshed', 'limit', sort @others)
	{
		my $cpu = field($figures->{$who}, 'cpu10k');

		# (A peer that does a few jobs in seconds uses next to nothing.)
		next if ref $cpu && $figures->{$who}[0]{done} < 100;
		my $client =
		  ref $cpu
		  ? median(grep { defined } @{ field($figures->{$who}, 'client10k') })
		  : undef;

		row(part   => 'drain',
			what   => 'CPU of the server for 10,000 inserts',
			who    => $who,
			values => $cpu,
			unit   => 's',
			chart  => $who =~ /defaults/ ? undef
			: 'CPU of the server for 10,000 inserts',
			goal  => $who eq 'taskshed' ? [ '<=', 0.25 ] : undef,
			ratio => $who eq 'taskshed' ? undef
			: ratios($cpu, field($figures->{taskshed}, 'cpu10k')),
			to   => 'taskshed',
			note => defined $client
			? sprintf('and %.2f s of its own process', $client)
			: undef);
	}
	lags_of_cron($figures->{pg_cron});
	return;
}

# What the same minutes of pg_cron say about lag.
sub lags_of_cron
{
	my ($figures) = @_;

	return if !ref $figures;
	foreach my $p (50, 99)
	{
		row(part   => 'drain',
			what   => "lag p$p of a full minute's jobs",
			who    => "pg_cron, $size{cron} jobs",
			values =>
			  [ map { percentile($p / 100, @{ $_->{lags} }) } @$figures ],
			unit => 'ms');
	}
	return;
}

1;
