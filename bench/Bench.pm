
# What the measurements share: how much is measured, rounds, statistics, and the
# rows of the table.
#
# A measurement is a file of bench/ with a sub "measure".  It runs its
# contestants one after the other, and that several times (rounds), so that
# whatever else happens on the machine hits all of them; a ratio is always one
# of figures of the same round.  Load.pm says which rounds are not to be trusted.

package Bench;

use strict;
use warnings;

use Exporter 'import';
use List::Util qw(max min);
use POSIX      ();

our @EXPORT = qw(
  %have %size $cores $quick @measurements @rows add_round alternate field
  measurement median missing note percentile ratios row
);

our $cores = `nproc` + 0;
our $quick = ($ENV{QUICK} || '0') ne '0';
our @rows;
our @measurements;    # { rounds => [ what Load says of each ], what }
our %have;            # which of the peers are there: pg_cron, npm

# How much is measured: in full, and in the short form.
my %sizes = (
	rounds             => [ 5,          2 ],
	few_rounds         => [ 2,          1 ],
	drain              => [ 200_000,    20_000 ],
	drain_best_limit_s => [ 60,         5 ],
	drain_peers        => [ 50_000,     5_000 ],
	drain_limit_s      => [ 5,          2 ],
	drain_durable      => [ 50_000,     5_000 ],
	durable            => [ 20_000,     2_000 ],
	bursts             => [ 10,         2 ],
	burst              => [ 100,        100 ],
	ontime_s           => [ 4,          2 ],
	cron               => [ 400,        400 ],
	lags               => [ 200,        40 ],
	lag_span_s         => [ 20,         2 ],
	cold               => [ 20,         5 ],
	first              => [ 20,         5 ],
	flow               => [ 10_000,     10_000 ],
	ahead              => [ 10_000_000, 100_000 ],
	fan                => [ 50_000,     5_000 ],
	chain              => [ 10_000,     2_000 ],
	peers_ahead        => [ 10_000,     1_000 ],
	idle_s             => [ 60,         5 ],
	size_ahead         => [ 10_000_000, 200_000 ],
	size_lags          => [ 1_000,      100 ],
	snapshot           => [ 1_000_000,  60_000 ],
	snapshot_recurring => [ 100_000,    10_000 ],
	add_s              => [ 5,          1 ],
	add_bulk           => [ 100_000,    20_000 ],
	recurring          => [ 10_000,     10_000 ],
	recurring_s        => [ 60,         4 ],
	calendar           => [ 1_000_000,  50_000 ],
	memory             => [ 5_000_000,  300_000 ],
	memory_chunk       => [ 100_000,    30_000 ],
	memory_ahead       => [ 10_000_000, 200_000 ]);
our %size = map { $_ => $sizes{$_}[ $quick ? 1 : 0 ] } keys %sizes;

# Any of them can be set from outside, to try a measurement:
# BENCH_SIZES="drain=1000 rounds=1"
foreach (split ' ', $ENV{BENCH_SIZES} || '')
{
	die "BENCH_SIZES: $_?\n" if !/^(\w+)=(\d+)$/ || !defined $size{$1};
	$size{$1} = $2;
}

sub note
{
	my @what = @_;

	printf STDERR "%s  %s\n", POSIX::strftime('%H:%M:%S', localtime), "@what";
	return;
}

# The same for each contestant in each round.  Parameters: name => sub.  The
# order is turned round every other time, so that none always comes after the
# same other.  Returns name => [figures]; one that died has a string instead.  One
# that returns nothing has no part in the round: those that are far behind, or
# take minutes, are in the first few only.
#
# This is a measurement: the rows that come after it belong to it.
sub alternate
{
	my (@contestants) = @_;
	my (%of, @names, %figures);

	while (my ($name, $sub) = splice @contestants, 0, 2)
	{
		push @names, $name;
		$of{$name} = $sub;
	}
	measurement();
	foreach my $round (1 .. $size{rounds})
	{
		my $before = Load::load_now();

		foreach my $name ($round % 2 ? @names : reverse @names)
		{
			next if defined $figures{$name} && !ref $figures{$name};
			note("  round $round: $name");
			my $figure = eval { $of{$name}->($round) };
			if ($@)
			{
				($figures{$name} = $@) =~ s/\s+/ /g;
				note("  $name: $figures{$name}");
			}
			elsif (defined $figure)
			{
				push @{ $figures{$name} }, $figure;
			}
		}
		add_round($before);
	}
	return \%figures;
}

# Begins a measurement.
sub measurement
{
	push @measurements, { rounds => [] };
	return;
}

# Adds a round to it, which began at load_now().
sub add_round
{
	my ($before) = @_;
	my $load     = Load::load_since($before);
	my $rounds   = $measurements[-1]{rounds};

	push @$rounds, $load;
	note(
		sprintf
		  '  round %d is not to be trusted: steal %.0f %%, others %.0f %%',
		scalar @$rounds,
		@$load{qw(steal others)}) if !Load::trusted($load);
	return;
}


# Statistics

sub median
{
	my @sorted = sort { $a <=> $b } @_;
	return if !@sorted;
	return ($sorted[ $#sorted / 2 ] + $sorted[ ($#sorted + 1) / 2 ]) / 2;
}

sub percentile
{
	my ($p, @values) = @_;
	my @sorted = sort { $a <=> $b } @values;

	return if !@sorted;
	return $sorted[ max(0, POSIX::ceil($p * @sorted) - 1) ];
}

# One list divided by another, round by round.
sub ratios
{
	my ($above, $below) = @_;

	return if ref $above ne 'ARRAY' || ref $below ne 'ARRAY';
	return [ map { $below->[$_] ? $above->[$_] / $below->[$_] : () }
		  0 .. min($#$above, $#$below) ];
}

# One field of figures that are hashes.
sub field
{
	my ($figures, $field) = @_;

	return
	  ref $figures eq 'ARRAY' ? [ map { $_->{$field} } @$figures ] : $figures;
}


# The table

# Adds a row.  Parameters: part, what (is measured), who; values: the
# figures of the rounds, or a string that says why there are none; unit; goal
# => [ '>=' or '<=', number ] for the median of the values, or with a third
# element 'all' for each of them; ratio, to: what the
# values were divided by, and its name; ratio_goal likewise; note; chart: name
# of a chart that it belongs to.
sub row
{
	my (%row) = @_;

	$row{measurement} = $measurements[-1];
	$row{measurement}{what} //= $row{what};
	push @rows, \%row;
	return;
}

# A row of something that could not be measured.
sub missing
{
	my ($part, $what, $who, $why) = @_;

	row(part => $part, what => $what, who => $who, values => $why);
	return;
}

1;
