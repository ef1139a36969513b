/*-------------------------------------------------------------------------
 *
 * cron.c
 *		The times of a cron expression.
 *
 * An expression is a set of bits for each field.  The next time is found
 * by looking for the next bit from field to field, a month's days being worked
 * out at once; so a date that comes every eight years costs hardly more than
 * the next minute.
 *
 * Fields match local time.  If hours and minutes are fixed, each match means
 * the instant that zone.c says, so that no day is left out and none has it
 * twice.  If one of them has a wildcard or a step, the expression means each
 * instant at which the clock shows a match.
 *
 * Everything here is arithmetic on its arguments: no tables, no shared memory,
 * no session settings.
 *
 * Copyright (c) 2026, the taskshed developers
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "port/pg_bitutils.h"
#include "utils/datetime.h"
#include "utils/timestamp.h"

#include "times/times.h"

/*
 * Years of the same length that begin on the same weekday are alike.  The
 * years from 2000 to 2027 are of all kinds, and none comes less often than
 * once in 40 years.
 */
#define KINDS_FROM		2000
#define KINDS_TO		2027
#define MAX_YEARS		40

/*
 * The rules of zones repeat after so many years, in seconds, as the calendar
 * does.
 */
#define CYCLE			(INT64CONST(146097) * SECS_PER_DAY)

/* Return the first bit from n on that is set, or -1. */
int
cron_next_bit(uint64 bits, int n)
{
	bits &= ~UINT64CONST(0) << n;
	return bits == 0 ? -1 : pg_rightmost_one_pos64(bits);
}

/* Return the days of a month that match, the first of them as bit 1. */
static uint64
cron_days(const Cron *cron, int year, int month)
{
	int			ndays = day_tab[isleap(year)][month - 1];
	int			first = j2day(date2j(year, month, 1));	/* 0 is Sunday */
	uint64		all = CRON_BITS(1, ndays);
	uint64		days = cron->days;
	uint64		weekdays = 0;

	/* days of the month */
	if (cron->last_day)
		days |= CRON_BIT(ndays);
	for (int day = cron_next_bit(cron->nearest, 1); day > 0 && day <= ndays;
		 day = cron_next_bit(cron->nearest, day + 1))
	{
		int			weekday = (first + day - 1) % 7;

		/* not into another month, even if that is two days further */
		if (weekday == 6)
			days |= CRON_BIT(day > 1 ? day - 1 : day + 2);
		else if (weekday == 0)
			days |= CRON_BIT(day < ndays ? day + 1 : day - 2);
		else
			days |= CRON_BIT(day);
	}
	if (cron->last_workday)
	{
		int			weekday = (first + ndays - 1) % 7;

		days |= CRON_BIT(weekday == 6 ? ndays - 1 : weekday == 0 ? ndays - 2 : ndays);
	}

	/* days of the week */
	for (int weekday = 0; weekday < 7; weekday++)
	{
		int			day = 1 + (weekday - first + 7) % 7;
		int			last = day + 28 <= ndays ? day + 28 : day + 21;

		if (cron->weekdays & CRON_BIT(weekday))
			weekdays |= (CRON_BIT(0) | CRON_BIT(7) | CRON_BIT(14) | CRON_BIT(21) |
						 CRON_BIT(28)) << day;
		for (int n = 0; n < 5; n++)
		{
			if (cron->nth_weekdays[n] & CRON_BIT(weekday))
				weekdays |= CRON_BIT(day + 7 * n);
		}
		if (cron->last_weekdays & CRON_BIT(weekday))
			weekdays |= CRON_BIT(last);
	}

	/* if both fields say something, either will do */
	if (cron->any_day || cron->any_weekday)
		days &= weekdays;
	else
		days |= weekdays;
	return days & all;
}

/* Return the first time of day from one on that matches, in seconds; -1 if none. */
static int
cron_time(const Cron *cron, int from)
{
	int			hour = from / SECS_PER_HOUR;
	int			minute = from / SECS_PER_MINUTE % MINS_PER_HOUR;
	int			second = from % SECS_PER_MINUTE;

	if (cron->hours & CRON_BIT(hour))
	{
		if (cron->minutes & CRON_BIT(minute))
			second = cron_next_bit(cron->seconds, second);
		else
			second = -1;
		if (second < 0)
		{
			minute = cron_next_bit(cron->minutes, minute + 1);
			second = cron_next_bit(cron->seconds, 0);
		}
	}
	else
		minute = -1;
	if (minute < 0)
	{
		hour = cron_next_bit(cron->hours, hour + 1);
		minute = cron_next_bit(cron->minutes, 0);
		second = cron_next_bit(cron->seconds, 0);
	}
	return hour < 0 ? -1 : (hour * MINS_PER_HOUR + minute) * SECS_PER_MINUTE + second;
}

/*
 * Find the first local time from one on that matches, both as zone.c counts
 * them.  Return false if there is none.
 */
static bool
cron_next_local(const Cron *cron, int64 from, int64 *next)
{
	int64		date = from / SECS_PER_DAY - (from % SECS_PER_DAY < 0 ? 1 : 0);
	int			time = (int) (from - date * SECS_PER_DAY);
	int			year;
	int			month;
	int			day;
	int			last_year;

	date += UNIX_EPOCH_JDATE;
	if (date < 0 || date > TIMESTAMP_END_JULIAN)
		return false;
	j2date((int) date, &year, &month, &day);
	last_year = year + MAX_YEARS + 1;
	while (year <= last_year)
	{
		int			found = cron_next_bit(cron->months, month);
		uint64		days;

		/* a month of this year, or else the next year */
		if (found < 0)
		{
			year++;
			month = day = 1;
			time = 0;
			continue;
		}
		if (found > month)
		{
			month = found;
			day = 1;
			time = 0;
		}
		/* a day of that month, and a time of it; or else the next month */
		days = cron_days(cron, year, month);
		found = cron_next_bit(days, day);
		if (found == day && (time = cron_time(cron, time)) < 0)
			found = cron_next_bit(days, day + 1);
		if (found < 0)
		{
			month++;
			day = 1;
			time = 0;
			continue;
		}
		if (found > day)
			time = cron_time(cron, 0);
		*next = ((int64) date2j(year, month, found) - UNIX_EPOCH_JDATE) * SECS_PER_DAY + time;
		return true;
	}
	return false;
}

/*
 * Find the first time that an expression means after a given one, which is
 * finite.  Return false if there is none that a timestamp can hold.
 */
bool
cron_next(const Cron *cron, pg_tz *zone, TimestampTz after, TimestampTz *next)
{
	int64		from = zone_seconds(after) + 1;
	int64		local = 0;		/* the first match */
	int64		searched = 0;	/* from here on, in local time */
	ZoneSpan	span;

	if (cron->period > 0)
	{
		int64		into = (from - 1) % cron->period;

		if (into < 0)
			into += cron->period;
		return zone_timestamp(from - 1 - into + cron->period, 0, next);
	}

	if (!cron->by_elapsed_time)
	{
		int64		instant;

		if (!cron_next_local(cron, zone_unseen(zone, from - 1), &local))
			return false;
		zone_instant(zone, local, &instant);
		return zone_timestamp(instant, 0, next);
	}

	/*
	 * From one change of the clock to the next, since a match may be skipped,
	 * or come again.  One beyond the next change is looked for once.
	 */
	for (span.to = from; span.to - from <= CYCLE;)
	{
		int64		start;

		zone_span(zone, span.to, &span);
		start = span.from + span.offset;
		if (span.from == from || start < searched || start > local)
		{
			if (!cron_next_local(cron, start, &local))
				return false;
			searched = start;
		}
		if (local - span.offset < span.to)
			return zone_timestamp(local - span.offset, 0, next);
	}
	return false;
}

/* Return whether there is a day that matches, ever. */
bool
cron_can_match(const Cron *cron)
{
	for (int year = KINDS_FROM; year <= KINDS_TO; year++)
	{
		for (int month = cron_next_bit(cron->months, 1); month > 0;
			 month = cron_next_bit(cron->months, month + 1))
		{
			if (cron_days(cron, year, month) != 0)
				return true;
		}
	}
	return false;
}
