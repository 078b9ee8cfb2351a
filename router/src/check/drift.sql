WITH own_schema AS (
    SELECT n.oid, n.nspname, n.nspowner, n.nspacl FROM pg_catalog.pg_namespace n
     WHERE n.nspname !~ '^pg_' AND n.nspname NOT IN ('information_schema', 'switchyard')),
of_extension AS (
    SELECT d.classid, d.objid FROM pg_catalog.pg_depend d WHERE d.deptype = 'e'),
relation AS (
    SELECT c.*, pg_catalog.quote_ident(n.nspname) || '.' || pg_catalog.quote_ident(c.relname) AS name,
           CASE c.relkind WHEN 'v' THEN 'view' WHEN 'm' THEN 'materialized view' WHEN 'f' THEN 'foreign table'
                WHEN 'S' THEN 'sequence' ELSE 'table' END AS kind
      FROM pg_catalog.pg_class c JOIN own_schema n ON n.oid = c.relnamespace
     WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S') AND c.relpersistence <> 't'
       AND NOT EXISTS (SELECT FROM of_extension e WHERE e.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND e.objid = c.oid)),
routine AS (
    SELECT p.*, p.oid::pg_catalog.regprocedure::pg_catalog.text AS name,
           CASE p.prokind WHEN 'p' THEN 'procedure' WHEN 'a' THEN 'aggregate' ELSE 'function' END AS kind
      FROM pg_catalog.pg_proc p JOIN own_schema n ON n.oid = p.pronamespace
     WHERE NOT EXISTS (SELECT FROM of_extension e WHERE e.classid = 'pg_catalog.pg_proc'::pg_catalog.regclass AND e.objid = p.oid)),
type AS (
    SELECT t.*, pg_catalog.format_type(t.oid, NULL) AS name
      FROM pg_catalog.pg_type t JOIN own_schema n ON n.oid = t.typnamespace
     WHERE (t.typtype IN ('d', 'e', 'r')
            OR (t.typtype = 'c' AND EXISTS (SELECT FROM pg_catalog.pg_class c WHERE c.oid = t.typrelid AND c.relkind = 'c')))
       AND NOT EXISTS (SELECT FROM of_extension e WHERE e.classid = 'pg_catalog.pg_type'::pg_catalog.regclass AND e.objid = t.oid)),
privilege (kind, name, of, acl) AS (
    SELECT 'schema', pg_catalog.quote_ident(n.nspname), NULL, coalesce(n.nspacl, pg_catalog.acldefault('n', n.nspowner)) FROM own_schema n
    UNION ALL
    SELECT r.kind, r.name, r.name,
           coalesce(r.relacl, pg_catalog.acldefault(CASE r.relkind WHEN 'S' THEN 's' ELSE 'r' END::"char", r.relowner)) FROM relation r
    UNION ALL
    SELECT 'column', r.name || '.' || pg_catalog.quote_ident(a.attname), r.name, a.attacl
      FROM relation r JOIN pg_catalog.pg_attribute a ON a.attrelid = r.oid WHERE a.attacl IS NOT NULL
    UNION ALL
    SELECT p.kind, p.name, NULL, coalesce(p.proacl, pg_catalog.acldefault('f', p.proowner)) FROM routine p
    UNION ALL
    SELECT 'type', t.name, NULL, coalesce(t.typacl, pg_catalog.acldefault('T', t.typowner)) FROM type t
    UNION ALL
    SELECT 'database', pg_catalog.quote_ident(d.datname), NULL, coalesce(d.datacl, pg_catalog.acldefault('d', d.datdba))
      FROM pg_catalog.pg_database d WHERE d.datname = pg_catalog.current_database()),
role AS (
    SELECT r.* FROM pg_catalog.pg_roles r
     WHERE r.rolname !~ '^pg_'
       AND (r.rolname = current_user
            OR EXISTS (SELECT FROM pg_catalog.pg_shdepend s
                        WHERE s.refclassid = 'pg_catalog.pg_authid'::pg_catalog.regclass AND s.refobjid = r.oid
                          AND s.dbid = (SELECT d.oid FROM pg_catalog.pg_database d WHERE d.datname = pg_catalog.current_database()))))
SELECT 'schema', pg_catalog.quote_ident(n.nspname), NULL::pg_catalog.text, 'owner ' || pg_catalog.pg_get_userbyid(n.nspowner)
  FROM own_schema n
UNION ALL
SELECT r.kind, r.name, NULL,
       pg_catalog.concat_ws(', ', 'owner ' || pg_catalog.pg_get_userbyid(r.relowner),
           CASE r.relpersistence WHEN 'u' THEN 'unlogged' END,
           'options ' || (SELECT pg_catalog.string_agg(o, ' ' ORDER BY o COLLATE "C") FROM pg_catalog.unnest(r.reloptions) AS o),
           CASE WHEN r.relrowsecurity THEN 'row security' END, CASE WHEN r.relforcerowsecurity THEN 'forced row security' END,
           CASE WHEN r.relkind IN ('r', 'p') AND r.relreplident <> 'd' THEN 'replica identity ' || r.relreplident::pg_catalog.text END,
           'partitioned by ' || pg_catalog.pg_get_partkeydef(r.oid),
           'partition ' || pg_catalog.pg_get_expr(r.relpartbound, r.oid),
           'of ' || (SELECT pg_catalog.string_agg(i.inhparent::pg_catalog.regclass::pg_catalog.text, ' ' ORDER BY i.inhseqno)
                       FROM pg_catalog.pg_inherits i WHERE i.inhrelid = r.oid),
           CASE WHEN r.relkind IN ('v', 'm') THEN pg_catalog.pg_get_viewdef(r.oid) END,
           (SELECT pg_catalog.concat_ws(' ', 'as', pg_catalog.format_type(s.seqtypid, NULL), 'start', s.seqstart, 'increment', s.seqincrement,
                                        'minimum', s.seqmin, 'maximum', s.seqmax, 'cache', s.seqcache, CASE WHEN s.seqcycle THEN 'cycle' END)
              FROM pg_catalog.pg_sequence s WHERE s.seqrelid = r.oid))
  FROM relation r
UNION ALL
SELECT 'column', r.name || '.' || pg_catalog.quote_ident(a.attname), r.name,
       pg_catalog.concat_ws(' ', pg_catalog.format_type(a.atttypid, a.atttypmod),
           'COLLATE ' || (SELECT pg_catalog.quote_ident(l.collname) FROM pg_catalog.pg_collation l
                           WHERE l.oid = a.attcollation AND l.collname <> 'default'),
           CASE WHEN a.attnotnull THEN 'NOT NULL' END,
           CASE WHEN a.attgenerated = '' THEN 'DEFAULT ' ELSE 'GENERATED ' END || pg_catalog.pg_get_expr(d.adbin, d.adrelid),
           CASE a.attidentity WHEN 'a' THEN 'IDENTITY ALWAYS' WHEN 'd' THEN 'IDENTITY BY DEFAULT' END)
  FROM relation r JOIN pg_catalog.pg_attribute a ON a.attrelid = r.oid
       LEFT JOIN pg_catalog.pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
 WHERE a.attnum > 0 AND NOT a.attisdropped AND r.relkind <> 'S'
UNION ALL
SELECT 'index', i.indexrelid::pg_catalog.regclass::pg_catalog.text, r.name,
       pg_catalog.concat_ws(', ', pg_catalog.pg_get_indexdef(i.indexrelid), CASE WHEN NOT i.indisvalid THEN 'invalid' END,
                            CASE WHEN i.indisclustered THEN 'clustered' END, CASE WHEN i.indisreplident THEN 'replica identity' END)
  FROM relation r JOIN pg_catalog.pg_index i ON i.indrelid = r.oid
UNION ALL
SELECT 'constraint', coalesce(r.name, pg_catalog.format_type(c.contypid, NULL)) || '.' || pg_catalog.quote_ident(c.conname), r.name,
       pg_catalog.pg_get_constraintdef(c.oid)
  FROM pg_catalog.pg_constraint c LEFT JOIN relation r ON r.oid = c.conrelid LEFT JOIN type t ON t.oid = c.contypid
 WHERE r.oid IS NOT NULL OR t.oid IS NOT NULL
UNION ALL
SELECT 'trigger', r.name || '.' || pg_catalog.quote_ident(t.tgname), r.name,
       pg_catalog.concat_ws(', ', pg_catalog.pg_get_triggerdef(t.oid),
           CASE t.tgenabled WHEN 'D' THEN 'disabled' WHEN 'R' THEN 'on replicas' WHEN 'A' THEN 'always' END)
  FROM relation r JOIN pg_catalog.pg_trigger t ON t.tgrelid = r.oid WHERE NOT t.tgisinternal
UNION ALL
SELECT 'rule', r.name || '.' || pg_catalog.quote_ident(u.rulename), r.name, pg_catalog.pg_get_ruledef(u.oid)
  FROM relation r JOIN pg_catalog.pg_rewrite u ON u.ev_class = r.oid WHERE u.rulename <> '_RETURN'
UNION ALL
SELECT 'policy', r.name || '.' || pg_catalog.quote_ident(p.polname), r.name,
       pg_catalog.concat_ws(' ', p.polcmd, p.polpermissive,
           (SELECT pg_catalog.string_agg(u.name, ',' ORDER BY u.name COLLATE "C")
              FROM (SELECT CASE o WHEN 0 THEN 'public' ELSE pg_catalog.pg_get_userbyid(o)::pg_catalog.text END AS name
                      FROM pg_catalog.unnest(p.polroles) AS o) AS u),
           'USING ' || pg_catalog.pg_get_expr(p.polqual, p.polrelid), 'CHECK ' || pg_catalog.pg_get_expr(p.polwithcheck, p.polrelid))
  FROM relation r JOIN pg_catalog.pg_policy p ON p.polrelid = r.oid
UNION ALL
SELECT p.kind, p.name, NULL,
       'owner ' || pg_catalog.pg_get_userbyid(p.proowner) || ', '
       || CASE WHEN p.prokind = 'a'
               THEN (SELECT pg_catalog.concat_ws(' ', a.aggtransfn::pg_catalog.regprocedure, a.aggfinalfn::pg_catalog.regprocedure,
                                                 pg_catalog.format_type(a.aggtranstype, NULL), a.agginitval, a.aggsortop::pg_catalog.regoperator)
                       FROM pg_catalog.pg_aggregate a WHERE a.aggfnoid = p.oid)
               ELSE pg_catalog.pg_get_functiondef(p.oid) END
  FROM routine p
UNION ALL
SELECT CASE t.typtype WHEN 'd' THEN 'domain' ELSE 'type' END, t.name, NULL,
       pg_catalog.concat_ws(' ', 'owner ' || pg_catalog.pg_get_userbyid(t.typowner) || ',',
           CASE WHEN t.typtype = 'd' THEN pg_catalog.format_type(t.typbasetype, t.typtypmod) END,
           CASE WHEN t.typnotnull THEN 'NOT NULL' END, 'DEFAULT ' || t.typdefault,
           (SELECT 'ENUM (' || pg_catalog.string_agg(pg_catalog.quote_literal(e.enumlabel), ', ' ORDER BY e.enumsortorder) || ')'
              FROM pg_catalog.pg_enum e WHERE e.enumtypid = t.oid),
           (SELECT '(' || pg_catalog.string_agg(pg_catalog.quote_ident(a.attname) || ' ' || pg_catalog.format_type(a.atttypid, a.atttypmod),
                                                ', ' ORDER BY a.attnum) || ')'
              FROM pg_catalog.pg_attribute a WHERE t.typtype = 'c' AND a.attrelid = t.typrelid AND a.attnum > 0 AND NOT a.attisdropped),
           (SELECT 'RANGE OF ' || pg_catalog.format_type(g.rngsubtype, NULL) FROM pg_catalog.pg_range g WHERE g.rngtypid = t.oid))
  FROM type t
UNION ALL
SELECT 'extension', pg_catalog.quote_ident(e.extname), NULL,
       'version ' || e.extversion || ' in ' || e.extnamespace::pg_catalog.regnamespace::pg_catalog.text
  FROM pg_catalog.pg_extension e
UNION ALL
SELECT 'privileges on ' || p.kind, p.name, p.of,
       (SELECT pg_catalog.string_agg(x.given, ', ' ORDER BY x.given COLLATE "C")
          FROM (SELECT DISTINCT CASE e.grantee WHEN 0 THEN 'PUBLIC' ELSE pg_catalog.pg_get_userbyid(e.grantee)::pg_catalog.text END
                                || ' ' || e.privilege_type || CASE WHEN e.is_grantable THEN ' with grant option' ELSE '' END AS given
                  FROM pg_catalog.aclexplode(p.acl) AS e) AS x)
  FROM privilege p
UNION ALL
SELECT 'default privileges', pg_catalog.concat_ws(' ', pg_catalog.pg_get_userbyid(d.defaclrole), d.defaclnamespace::pg_catalog.regnamespace, d.defaclobjtype),
       NULL, (SELECT pg_catalog.string_agg(o::pg_catalog.text, ' ' ORDER BY o::pg_catalog.text COLLATE "C") FROM pg_catalog.unnest(d.defaclacl) AS o)
  FROM pg_catalog.pg_default_acl d
UNION ALL
SELECT 'role', pg_catalog.quote_ident(r.rolname), NULL,
       pg_catalog.concat_ws(' ', CASE WHEN r.rolsuper THEN 'superuser' END, CASE WHEN NOT r.rolinherit THEN 'noinherit' END,
           CASE WHEN r.rolcreaterole THEN 'createrole' END, CASE WHEN r.rolcreatedb THEN 'createdb' END,
           CASE WHEN r.rolcanlogin THEN 'login' ELSE 'nologin' END, CASE WHEN r.rolbypassrls THEN 'bypassrls' END,
           'member of ' || (SELECT pg_catalog.string_agg(DISTINCT g.rolname::pg_catalog.text COLLATE "C", ', ') FROM pg_catalog.pg_auth_members m
                             JOIN pg_catalog.pg_roles g ON g.oid = m.roleid WHERE m.member = r.oid))
  FROM role r
UNION ALL
SELECT 'settings of', pg_catalog.concat_ws(' ', CASE WHEN s.setdatabase <> 0 THEN 'the database' END,
                                         CASE WHEN s.setrole <> 0 THEN 'role ' || pg_catalog.pg_get_userbyid(s.setrole)::pg_catalog.text END), NULL,
       (SELECT pg_catalog.string_agg(o, ', ' ORDER BY o COLLATE "C") FROM pg_catalog.unnest(s.setconfig) AS o)
  FROM pg_catalog.pg_db_role_setting s LEFT JOIN pg_catalog.pg_database d ON d.oid = s.setdatabase
 WHERE (s.setdatabase = 0 OR d.datname = pg_catalog.current_database())
   AND (s.setrole = 0 OR s.setrole IN (SELECT r.oid FROM role r))
UNION ALL
SELECT 'event trigger', pg_catalog.quote_ident(e.evtname), NULL,
       pg_catalog.concat_ws(' ', e.evtevent, e.evtfoid::pg_catalog.regprocedure, e.evtenabled, pg_catalog.array_to_string(e.evttags, ','))
  FROM pg_catalog.pg_event_trigger e
