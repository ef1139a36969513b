/*-------------------------------------------------------------------------
 *
 * every.c
 *		The grid of times of an interval.
 *
 * The n-th time is anchor + n * every, in the task's time zone: first n times
 * the months, clipped to the month's last day, then the days, then the exact
 * time.  That is not n steps of the interval: from January 31 a step of one
 * month leads to February 28 and on to March 31.
 *
 * Everything here is arithmetic on its arguments: no tables, no shared
 * memory, no session settings.
 *
 * Copyright (c) 2026, the taskshed developers
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <math.h>

#include "common/int.h"
#include "utils/datetime.h"
#include "utils/timestamp.h"

#include "times/times.h"

/* Average length of a month, in microseconds: 146,097 days in 400 years. */
#define USECS_PER_MONTH		(INT64CONST(146097) * USECS_PER_DAY / 4800)

/* Longest interval that a user can give, in months. */
#define MAX_MONTHS			(1000 * MONTHS_PER_YEAR)

/*
 * Find the n-th time of a grid.  A local time that does not exist, or exists
 * twice, means what zone.c says.  Return false if the time lies beyond what a
 * timestamp can hold.
 */
static bool
every_nth(TimestampTz anchor, const Interval *every, pg_tz *zone, int64 n,
		  TimestampTz *result)
{
	int64		months;
	int64		days;
	int64		usecs;
	TimestampTz t = anchor;

	if (pg_mul_s64_overflow(n, every->month, &months) ||
		pg_mul_s64_overflow(n, every->day, &days) ||
		pg_mul_s64_overflow(n, every->time, &usecs))
		return false;

	/* months and days are counted in local time */
	if (months != 0 || days != 0)
	{
		struct pg_tm tm;
		fsec_t		fsec;
		int			tz;
		int64		month;
		int64		year;
		int64		julian;
		int64		local;
		int64		instant;

		if (timestamp2tm(t, &tz, &tm, &fsec, NULL, zone) != 0)
			return false;

		month = (int64) tm.tm_mon - 1 + months;
		year = tm.tm_year + month / MONTHS_PER_YEAR;
		month %= MONTHS_PER_YEAR;
		if (month < 0)
		{
			month += MONTHS_PER_YEAR;
			year--;
		}
		if (year < -4713 || year > 294277)
			return false;
		tm.tm_year = (int) year;
		tm.tm_mon = (int) month + 1;
		tm.tm_mday = Min(tm.tm_mday, day_tab[isleap(tm.tm_year)][tm.tm_mon - 1]);

		julian = (int64) date2j(tm.tm_year, tm.tm_mon, tm.tm_mday) + days;
		if (julian < 0 || julian >= TIMESTAMP_END_JULIAN)
			return false;
		local = (julian - UNIX_EPOCH_JDATE) * SECS_PER_DAY +
			(tm.tm_hour * MINS_PER_HOUR + tm.tm_min) * SECS_PER_MINUTE + tm.tm_sec;

		/* in a gap: the instant after it, without the fraction */
		if (!zone_instant(zone, local, &instant))
			fsec = 0;
		if (!zone_timestamp(instant, fsec, &t))
			return false;
	}

	/* the rest is exact time */
	if (pg_add_s64_overflow(t, usecs, &t) || !IS_VALID_TIMESTAMP(t))
		return false;
	*result = t;
	return true;
}

/* Return the average length of an interval, in microseconds. */
static double
every_length(const Interval *every)
{
	return (double) every->month * USECS_PER_MONTH +
		(double) every->day * USECS_PER_DAY + (double) every->time;
}

static bool
every_is_finite(const Interval *every)
{
	return every->month != PG_INT32_MAX && every->month != PG_INT32_MIN;
}

/*
 * Find out by how much an interval moves time at the least, in microseconds,
 * whatever the anchor and zone.  Where its parts pull in different directions,
 * those that pull forward are taken for as short as they can be, and the others
 * for as long: months of 28 to 31 days, days of 23 to 25 hours.  Return false
 * if that is out of range.
 */
static bool
every_shortest(const Interval *every, int64 *sum)
{
	int64		days = (int64) every->month * (every->month > 0 ? 28 : 31) + every->day;
	int64		hours_in_day = 24;

	if ((days > 0 && every->time < 0) || (days < 0 && every->time > 0))
		hours_in_day = days > 0 ? 23 : 25;
	return !pg_mul_s64_overflow(days, hours_in_day * USECS_PER_HOUR, sum) &&
		!pg_add_s64_overflow(*sum, every->time, sum);
}

/*
 * Return whether an interval, which may have been written by hand, is one to
 * recur by.
 */
bool
every_moves_forward(const Interval *every)
{
	int64		sum;

	return every_is_finite(every) && every_shortest(every, &sum) && sum > 0;
}

/*
 * Refuse an interval that is longer than anybody means: 22023.  It is a number
 * in a unit that the server has taken for seconds, such as a client's duration
 * in nanoseconds.  what is the name of the parameter.
 */
void
every_check_length(const char *what, const Interval *interval)
{
	if (every_length(interval) > (double) MAX_MONTHS * USECS_PER_MONTH)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("%s must not be longer than 1000 years", what),
				 interval->month == 0 && interval->day == 0 ?
				 errhint("A number without a unit is taken for seconds.") : 0));
}

/*
 * Refuse an interval that does not move time forward, or is longer than can be
 * meant: 22023.
 */
void
every_check(const Interval *every)
{
	int64		sum;
	bool		mixed;

	if (!every_is_finite(every))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("interval of a recurring task must be finite")));
	if (!every_shortest(every, &sum))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("interval of a recurring task is out of range")));

	every_check_length("interval of a recurring task", every);

	mixed = (every->month > 0 || every->day > 0 || every->time > 0) &&
		(every->month < 0 || every->day < 0 || every->time < 0);
	if (sum <= 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("interval of a recurring task must move time forward"),
				 mixed ? errdetail("Months have 28 to 31 days, and days 23 to 25 hours.") : 0));
}

/*
 * Find the first time of a grid after a given time; the grid begins with the
 * anchor itself.  Return false if there is none that a timestamp can hold.  The
 * interval moves time forward, and both times are finite.
 *
 * The number of the time is estimated from the interval's average length,
 * bracketed by steps that double, and found by bisection: far-behind tasks cost
 * no more than others.
 */
bool
every_next(TimestampTz anchor, const Interval *every, pg_tz *zone,
		   TimestampTz after, TimestampTz *next)
{
	int64		low;			/* its time is <= after */
	int64		high;			/* its time is > after, or out of range */
	int64		step = 1;
	TimestampTz t;
	double		length;

	Assert(every_moves_forward(every));
	if (anchor > after)
	{
		*next = anchor;
		return true;
	}

	/* A grid of exact time needs no search. */
	if (every->month == 0 && every->day == 0)
	{
		int64		n = (int64) (((uint64) after - (uint64) anchor) / (uint64) every->time) + 1;

		return every_nth(anchor, every, zone, n, next);
	}

	/* a guess, which must not be too late; then steps back, if it is */
	length = every_length(every);
	low = (int64) (((double) after - (double) anchor) / length);

	while (low > 0 &&
		   (!every_nth(anchor, every, zone, low, &t) || t > after))
	{
		low = Max(low - step, 0);
		step *= 2;
	}

	/* steps forward to one that is too late */
	step = 1;
	high = low + step;
	while (every_nth(anchor, every, zone, high, &t) && t <= after)
	{
		low = high;
		step *= 2;
		high = low + step;
	}

	/* bisection */
	while (high - low > 1)
	{
		int64		middle = low + (high - low) / 2;

		if (every_nth(anchor, every, zone, middle, &t) && t <= after)
			low = middle;
		else
			high = middle;
	}
	return every_nth(anchor, every, zone, high, next);
}
