/*-------------------------------------------------------------------------
 *
 * calendar.c
 *		The times of a recurring task: the grid of an interval, or a schedule.
 *
 * Whoever asks for a task's next time asks here, so that previews show what
 * the scheduler does.
 *
 * Copyright (c) 2026, the taskshed developers
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "times/times.h"

/*
 * Find the first time after a given one, which is finite.  Return false if
 * there is none that a timestamp can hold.
 */
bool
calendar_next(const Calendar *calendar, TimestampTz after, TimestampTz *next)
{
	if (calendar->has_schedule)
		return cron_next(&calendar->schedule, calendar->zone, after, next);
	return every_next(calendar->anchor, &calendar->every, calendar->zone, after, next);
}
