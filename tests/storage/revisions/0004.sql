CREATE TABLE public.mrm_alembic_version (
    version_num character varying(32) NOT NULL
);
CREATE TABLE public.mrm_api_keys (
    tenant character varying(255) NOT NULL,
    key_hash bytea NOT NULL,
    name character varying(255) NOT NULL,
    created_at timestamp with time zone NOT NULL,
    revoked_at timestamp with time zone
);
CREATE TABLE public.mrm_bundles (
    tenant character varying(255) NOT NULL,
    fingerprint character varying(64) NOT NULL,
    features character varying(64) NOT NULL,
    name character varying(255) NOT NULL,
    first_used_at timestamp with time zone NOT NULL
);
CREATE TABLE public.mrm_comparison_features (
    tenant character varying(255) NOT NULL,
    event_id character varying(255) NOT NULL,
    features character varying(64) NOT NULL,
    z bytea NOT NULL
);
CREATE TABLE public.mrm_comparisons (
    tenant character varying(255) NOT NULL,
    event_id character varying(255) NOT NULL,
    user_id character varying(255) NOT NULL,
    chosen bytea NOT NULL,
    rejected bytea NOT NULL,
    tie boolean NOT NULL,
    strength double precision NOT NULL,
    created_at timestamp with time zone NOT NULL,
    content bytea NOT NULL
);
CREATE TABLE public.mrm_item_features (
    tenant character varying(255) NOT NULL,
    item_key bytea NOT NULL,
    features character varying(64) NOT NULL,
    base_rewards bytea NOT NULL
);
CREATE TABLE public.mrm_items (
    tenant character varying(255) NOT NULL,
    item_key bytea NOT NULL,
    prompt text,
    response text,
    embedding bytea
);
CREATE TABLE public.mrm_outbox (
    tenant character varying(255) NOT NULL,
    event_id character varying(255) NOT NULL,
    user_id character varying(255) NOT NULL,
    kind character varying(32) NOT NULL,
    created_at timestamp with time zone NOT NULL,
    leased_until timestamp with time zone
);
CREATE TABLE public.mrm_ratings (
    tenant character varying(255) NOT NULL,
    event_id character varying(255) NOT NULL,
    user_id character varying(255) NOT NULL,
    item_key bytea NOT NULL,
    prompt_key bytea NOT NULL,
    value double precision NOT NULL,
    strength double precision NOT NULL,
    created_at timestamp with time zone NOT NULL,
    content bytea NOT NULL
);
CREATE TABLE public.mrm_retention (
    tenant character varying(255) NOT NULL,
    pruned_before timestamp with time zone NOT NULL
);
CREATE TABLE public.mrm_tombstones (
    tenant character varying(255) NOT NULL,
    user_id character varying(255) NOT NULL,
    event_id character varying(255) NOT NULL,
    forgotten_at timestamp with time zone NOT NULL
);
CREATE TABLE public.mrm_user_weights (
    tenant character varying(255) NOT NULL,
    user_id character varying(255) NOT NULL,
    fingerprint character varying(64) NOT NULL,
    weights bytea NOT NULL,
    covariance bytea,
    comparisons integer NOT NULL,
    feedback bigint NOT NULL,
    revision bigint NOT NULL,
    compared integer,
    rating_pairs integer,
    ratings_alone integer
);
CREATE TABLE public.mrm_users (
    tenant character varying(255) NOT NULL,
    user_id character varying(255) NOT NULL,
    feedback bigint NOT NULL
);
INSERT INTO public.mrm_alembic_version VALUES ('0004');
INSERT INTO public.mrm_api_keys VALUES ('default', '\x000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f', 'Schlüssel', '2025-03-01 12:30:15.123456+00', NULL);
INSERT INTO public.mrm_bundles VALUES ('default', 'e408d632951355a5083931166251b72fc39e1d12dd0b6d579dacdfa013c96b52', '7ef6232fbc9fb08f7dfca0191dbe26f5378dc60b930551ce18e34a764ccf4346', 'tiny', '2026-11-29 07:08:18.984369+00');
INSERT INTO public.mrm_bundles VALUES ('globex', 'e408d632951355a5083931166251b72fc39e1d12dd0b6d579dacdfa013c96b52', '7ef6232fbc9fb08f7dfca0191dbe26f5378dc60b930551ce18e34a764ccf4346', 'tiny', '2026-11-29 07:08:19.146+00');
INSERT INTO public.mrm_comparison_features VALUES ('default', 'c1', '9e3316c8038104731646fc1fc1e11deecb87569bc94d9e69ff9a32d5903b0d30', '\x50e4ca3ec1540cc0e672713e');
INSERT INTO public.mrm_comparison_features VALUES ('default', 'c2', '9e3316c8038104731646fc1fc1e11deecb87569bc94d9e69ff9a32d5903b0d30', '\x9733da3f60e1e6bd5e528f3f');
INSERT INTO public.mrm_comparison_features VALUES ('default', 'c3', '9e3316c8038104731646fc1fc1e11deecb87569bc94d9e69ff9a32d5903b0d30', '\xd3d5c93f0c871d409f0e4e3f');
INSERT INTO public.mrm_comparison_features VALUES ('default', 'c4', '9e3316c8038104731646fc1fc1e11deecb87569bc94d9e69ff9a32d5903b0d30', '\x14cc34c0bcc7d5bfc9e54f3f');
INSERT INTO public.mrm_comparison_features VALUES ('default', 'c5', '9e3316c8038104731646fc1fc1e11deecb87569bc94d9e69ff9a32d5903b0d30', '\x50e4cabec1540c40e67271be');
INSERT INTO public.mrm_comparison_features VALUES ('default', 'k1', '9e3316c8038104731646fc1fc1e11deecb87569bc94d9e69ff9a32d5903b0d30', '\x94f6d63db8fa9fbd29fdbf3e');
INSERT INTO public.mrm_comparison_features VALUES ('default', 'k1#1', '9e3316c8038104731646fc1fc1e11deecb87569bc94d9e69ff9a32d5903b0d30', '\x2a3ecbbe3056b03ea0b1debc');
INSERT INTO public.mrm_comparison_features VALUES ('default', 'k1#2', '9e3316c8038104731646fc1fc1e11deecb87569bc94d9e69ff9a32d5903b0d30', '\xe87d00bfde54d83e43e8cdbe');
INSERT INTO public.mrm_comparison_features VALUES ('globex', 'c1', '9e3316c8038104731646fc1fc1e11deecb87569bc94d9e69ff9a32d5903b0d30', '\x3704d0bfd0319a3eb3d9033f');
INSERT INTO public.mrm_comparisons VALUES ('default', 'c1', 'ada', '\xe3415d3d1d28174c204262761061475e76854eda5c4354741cda23c968c93bca', '\x493ea362db30f66c57f066acd96973e7cbf1ff4285e1c75c342067010708c3a8', false, 1, '2025-03-01 12:30:15.123456+00', '\xe00c295637b2ec3573ca6abf0317a546ed050c9e3b241e1b654273c02d9f19a4');
INSERT INTO public.mrm_comparisons VALUES ('default', 'c2', 'ada', '\xace98de955e98e3aa108f54df5ff5beaffe7195b5d1dde1f9ca8811cec37fcbd', '\xa2169c58b0b0bc3800beaf863f80fb8b59b57d63effe2f28970d1b657dd6fd3a', false, 1, '2025-03-01 12:30:15.123456+00', '\xc46d632e3ab0c99e0b5db281e89fc31ef6b17b82110008892c352841c0bded72');
INSERT INTO public.mrm_comparisons VALUES ('default', 'c3', 'ada', '\xbbf278953da13ef4907fa4f2cbf2f819b9207b9d076951541743f17fb1f8eda6', '\x95ea1cdab027d18d6cc80c0deec931aa8d52e06ad427babf7fbfea9b8512beaa', true, 1, '2025-03-01 12:30:15.123456+00', '\x44a25e9f63cb3352bef98cfb112573715f9c484db4bcea45648b229fcb4ffc35');
INSERT INTO public.mrm_comparisons VALUES ('default', 'c4', 'ada', '\x95ea1cdab027d18d6cc80c0deec931aa8d52e06ad427babf7fbfea9b8512beaa', '\xbec10750f70128afd259bff168eade5a75c9b1825b4ee788e677ac62e020307c', false, 2.5, '2025-03-01 12:30:15.123456+00', '\x8aee96fab6545c107fd1e388787ee462c2ef7581df2c95d1ef6b4b5dea92605c');
INSERT INTO public.mrm_comparisons VALUES ('default', 'c5', 'bøb 🙂', '\x493ea362db30f66c57f066acd96973e7cbf1ff4285e1c75c342067010708c3a8', '\xe3415d3d1d28174c204262761061475e76854eda5c4354741cda23c968c93bca', false, 0.125, '2025-03-01 12:30:15.123456+00', '\x213e5c4cc815e1c25ed1bfa30a8140b407a66405d4d7d7dc12705a1bf67cb417');
INSERT INTO public.mrm_comparisons VALUES ('default', 'k1', 'ada', '\x55e6c03dfba9b1ef385cce26693a7d2fb734fc5fd36ffbcc5c09ba63bb5a2aa9', '\x28002417588ce83d1a448a13101d6748db1ec6b9a49438aac31b5224781e754d', false, 0.6666666666666666, '2025-03-01 12:30:15.123456+00', '\xd49b83a698ca4fb21aafe159b48888462f98878ac56f6b1fb84cf4d0a45854ce');
INSERT INTO public.mrm_comparisons VALUES ('default', 'k1#1', 'ada', '\x55e6c03dfba9b1ef385cce26693a7d2fb734fc5fd36ffbcc5c09ba63bb5a2aa9', '\xace98de955e98e3aa108f54df5ff5beaffe7195b5d1dde1f9ca8811cec37fcbd', false, 0.6666666666666666, '2025-03-01 12:30:15.123456+00', '\x80fd25c33a1a4379b494cf1236140ef1ec833b5155add11d69f443ad4827dd72');
INSERT INTO public.mrm_comparisons VALUES ('default', 'k1#2', 'ada', '\x28002417588ce83d1a448a13101d6748db1ec6b9a49438aac31b5224781e754d', '\xace98de955e98e3aa108f54df5ff5beaffe7195b5d1dde1f9ca8811cec37fcbd', false, 0.6666666666666666, '2025-03-01 12:30:15.123456+00', '\x31b49687ddeb6e32558654796ad6367ae04aa8f5fae8d32264e2e057ba85209e');
INSERT INTO public.mrm_comparisons VALUES ('globex', 'c1', 'ada', '\xbd7278f2b45ed2a53dd63ac0128161c72565ba2e516595aed6019c74e46bc9c5', '\xbec10750f70128afd259bff168eade5a75c9b1825b4ee788e677ac62e020307c', false, 1, '2025-03-01 12:30:15.123456+00', '\x2d9de886509ac06aca0af7c7ca13d2225d055d5179a6cdd3596e30ee6c352d66');
INSERT INTO public.mrm_item_features VALUES ('default', '\x28002417588ce83d1a448a13101d6748db1ec6b9a49438aac31b5224781e754d', '9e3316c8038104731646fc1fc1e11deecb87569bc94d9e69ff9a32d5903b0d30', '\x94d3f83d199d6c3f809adf3b');
INSERT INTO public.mrm_item_features VALUES ('default', '\x493ea362db30f66c57f066acd96973e7cbf1ff4285e1c75c342067010708c3a8', '9e3316c8038104731646fc1fc1e11deecb87569bc94d9e69ff9a32d5903b0d30', '\x5131343ef363b33fba5b93be');
INSERT INTO public.mrm_item_features VALUES ('default', '\x55e6c03dfba9b1ef385cce26693a7d2fb734fc5fd36ffbcc5c09ba63bb5a2aa9', '9e3316c8038104731646fc1fc1e11deecb87569bc94d9e69ff9a32d5903b0d30', '\x14e5673ec29d583f937bc33e');
INSERT INTO public.mrm_item_features VALUES ('default', '\x95ea1cdab027d18d6cc80c0deec931aa8d52e06ad427babf7fbfea9b8512beaa', '9e3316c8038104731646fc1fc1e11deecb87569bc94d9e69ff9a32d5903b0d30', '\x0888c0bf6fb7a0bf9873b8bd');
INSERT INTO public.mrm_item_features VALUES ('default', '\xa2169c58b0b0bc3800beaf863f80fb8b59b57d63effe2f28970d1b657dd6fd3a', '9e3316c8038104731646fc1fc1e11deecb87569bc94d9e69ff9a32d5903b0d30', '\x6a678abfd64e1d3f66f135bf');
INSERT INTO public.mrm_item_features VALUES ('default', '\xace98de955e98e3aa108f54df5ff5beaffe7195b5d1dde1f9ca8811cec37fcbd', '9e3316c8038104731646fc1fc1e11deecb87569bc94d9e69ff9a32d5903b0d30', '\x5a981f3faa72003fad66d13e');
INSERT INTO public.mrm_item_features VALUES ('default', '\xbbf278953da13ef4907fa4f2cbf2f819b9207b9d076951541743f17fb1f8eda6', '9e3316c8038104731646fc1fc1e11deecb87569bc94d9e69ff9a32d5903b0d30', '\xb2dc943daa569a3f2c00373f');
INSERT INTO public.mrm_item_features VALUES ('default', '\xbc6e20d1fcfa045c71382a4730e6c945428d8c9f6548b3ed0799df2d5f53d5f2', '9e3316c8038104731646fc1fc1e11deecb87569bc94d9e69ff9a32d5903b0d30', '\xb03fcfbcf71a723e69deb3bf');
INSERT INTO public.mrm_item_features VALUES ('default', '\xbec10750f70128afd259bff168eade5a75c9b1825b4ee788e677ac62e020307c', '9e3316c8038104731646fc1fc1e11deecb87569bc94d9e69ff9a32d5903b0d30', '\x2010a93f3241d43e3cf466bf');
INSERT INTO public.mrm_item_features VALUES ('default', '\xe3415d3d1d28174c204262761061475e76854eda5c4354741cda23c968c93bca', '9e3316c8038104731646fc1fc1e11deecb87569bc94d9e69ff9a32d5903b0d30', '\x7c7e123f1e8b4abf381255bd');
INSERT INTO public.mrm_item_features VALUES ('globex', '\xbd7278f2b45ed2a53dd63ac0128161c72565ba2e516595aed6019c74e46bc9c5', '9e3316c8038104731646fc1fc1e11deecb87569bc94d9e69ff9a32d5903b0d30', '\x5cd09bbe8139373f1235c6be');
INSERT INTO public.mrm_item_features VALUES ('globex', '\xbec10750f70128afd259bff168eade5a75c9b1825b4ee788e677ac62e020307c', '9e3316c8038104731646fc1fc1e11deecb87569bc94d9e69ff9a32d5903b0d30', '\x2010a93f3241d43e3cf466bf');
INSERT INTO public.mrm_items VALUES ('default', '\x28002417588ce83d1a448a13101d6748db1ec6b9a49438aac31b5224781e754d', 'user: Wie heißt das?
assistant: 世界 🌍', 'second', NULL);
INSERT INTO public.mrm_items VALUES ('default', '\x493ea362db30f66c57f066acd96973e7cbf1ff4285e1c75c342067010708c3a8', 'How long?', 'a long one', NULL);
INSERT INTO public.mrm_items VALUES ('default', '\x55e6c03dfba9b1ef385cce26693a7d2fb734fc5fd36ffbcc5c09ba63bb5a2aa9', 'user: Wie heißt das?
assistant: 世界 🌍', 'first', NULL);
INSERT INTO public.mrm_items VALUES ('default', '\x95ea1cdab027d18d6cc80c0deec931aa8d52e06ad427babf7fbfea9b8512beaa', NULL, 'own', '\x0000803f0000000000000000000060c00000803e6f12833a');
INSERT INTO public.mrm_items VALUES ('default', '\xa2169c58b0b0bc3800beaf863f80fb8b59b57d63effe2f28970d1b657dd6fd3a', 'user: Wie heißt das?
assistant: 世界 🌍', 'naïve
	text ''quoted'' \ %s', NULL);
INSERT INTO public.mrm_items VALUES ('default', '\xace98de955e98e3aa108f54df5ff5beaffe7195b5d1dde1f9ca8811cec37fcbd', 'user: Wie heißt das?
assistant: 世界 🌍', 'Grüße ✨', NULL);
INSERT INTO public.mrm_items VALUES ('default', '\xbbf278953da13ef4907fa4f2cbf2f819b9207b9d076951541743f17fb1f8eda6', NULL, NULL, '\x0000003f0000a0bf00000040cdcccc3d333333bf0000c03f');
INSERT INTO public.mrm_items VALUES ('default', '\xbc6e20d1fcfa045c71382a4730e6c945428d8c9f6548b3ed0799df2d5f53d5f2', 'How long?', 'rated alone', NULL);
INSERT INTO public.mrm_items VALUES ('default', '\xbec10750f70128afd259bff168eade5a75c9b1825b4ee788e677ac62e020307c', NULL, 'a short one', NULL);
INSERT INTO public.mrm_items VALUES ('default', '\xe3415d3d1d28174c204262761061475e76854eda5c4354741cda23c968c93bca', 'How long?', 'a short one', NULL);
INSERT INTO public.mrm_items VALUES ('globex', '\xbd7278f2b45ed2a53dd63ac0128161c72565ba2e516595aed6019c74e46bc9c5', NULL, 'another tenant''s', NULL);
INSERT INTO public.mrm_items VALUES ('globex', '\xbec10750f70128afd259bff168eade5a75c9b1825b4ee788e677ac62e020307c', NULL, 'a short one', NULL);
INSERT INTO public.mrm_outbox VALUES ('default', 'c1', 'ada', 'comparison', '2025-03-01 12:30:15.123456+00', NULL);
INSERT INTO public.mrm_ratings VALUES ('default', 'r1', 'ada', '\xe3415d3d1d28174c204262761061475e76854eda5c4354741cda23c968c93bca', '\xb9fb4a27d7521aa569151529e679589d9289513c5f2dc5b673239f51635a28f9', 4.5, 1, '2025-03-01 12:30:15.123456+00', '\x90b147371089efb2f568f15ee17f2dabfbdd2f7975288c3afd18ace0985f1b18');
INSERT INTO public.mrm_ratings VALUES ('default', 'r2', 'ada', '\xbc6e20d1fcfa045c71382a4730e6c945428d8c9f6548b3ed0799df2d5f53d5f2', '\xb9fb4a27d7521aa569151529e679589d9289513c5f2dc5b673239f51635a28f9', -2, 1, '2025-03-01 12:30:15.123456+00', '\x0427fe38d707ecae2162fcff08a20ea906dd0faffc8e218f444fc650056d999c');
INSERT INTO public.mrm_ratings VALUES ('default', 't1', 'bøb 🙂', '\xbbf278953da13ef4907fa4f2cbf2f819b9207b9d076951541743f17fb1f8eda6', '\x74234e98afe7498fb5daf1f36ac2d78acc339464f950703b8c019892f982b90b', 1, 3, '2025-03-01 12:30:15.123456+00', '\x4bb42ffffcbd03855f87ba7bb051574b7d80da4f21dd775a8cc2661ca1f0d6ed');
INSERT INTO public.mrm_retention VALUES ('default', '2025-01-01 00:00:00+00');
INSERT INTO public.mrm_retention VALUES ('globex', '2025-01-01 00:00:00+00');
INSERT INTO public.mrm_tombstones VALUES ('default', 'gone', '01a22622-1ae4-7bd7-a6bf-2fa9ff9126c6', '2026-11-29 07:08:19.032319+00');
INSERT INTO public.mrm_tombstones VALUES ('globex', 'gone', '01a22622-1b83-7b61-8fd3-9c2cddc20914', '2026-11-29 07:08:19.199694+00');
INSERT INTO public.mrm_user_weights VALUES ('default', 'ada', 'aa2df7f47c90c00cf7707d582aeddf38aad35d74e80bd9cb6a6a580365837570', '\x589f7be75ccab0bf79549d4454a5e3bfbdc203adb730dc3f', '\xaff71f0fa3c6d13fdce9c6fe02a7bfbf87537b5d84df71bfdde9c6fe02a7bfbf10eb76e6b872d23f90ee310a5bf37f3f88537b5d84df71bf91ee310a5bf37f3fc36ff025f006a33f', 9, 2834916323547378, 1, 7, 1, 2);
INSERT INTO public.mrm_user_weights VALUES ('default', 'bøb 🙂', 'aa2df7f47c90c00cf7707d582aeddf38aad35d74e80bd9cb6a6a580365837570', '\x903d76daa731c73ff72e60dcf542e53fb47563ffa1eed83f', '\xff4c8372318b0d40ecce5af174fe90bfae61d9ea730163bfefce5af174fe90bf639225df8e6be33f682da08a666977bfad61d9ea730163bf682da08a666977bf5561f9cc98d4a33f', 2, 3812511292144401, 1, 1, 0, 1);
INSERT INTO public.mrm_user_weights VALUES ('globex', 'ada', 'aa2df7f47c90c00cf7707d582aeddf38aad35d74e80bd9cb6a6a580365837570', '\x9e356bcfd65aecbf76ccac438936bc3f2cd48c99b140d83f', '\x4c6e44e5ae0cfa3f69f7b250240bb83f786c73a6b9a27c3f68f7b250240bb83fb2a118d26e78ec3f25b2f6ac022f34bf776c73a6b9a27c3f25b2f6ac022f34bf6619ecf05ae8a33f', 1, 3624205594974963, 1, 1, 0, 0);
INSERT INTO public.mrm_users VALUES ('default', 'bøb 🙂', 3812511292144401);
INSERT INTO public.mrm_users VALUES ('default', 'ada', 2834916323547378);
INSERT INTO public.mrm_users VALUES ('globex', 'ada', 3624205594974963);
ALTER TABLE ONLY public.mrm_alembic_version
    ADD CONSTRAINT mrm_alembic_version_pkc PRIMARY KEY (version_num);
ALTER TABLE ONLY public.mrm_api_keys
    ADD CONSTRAINT pk_mrm_api_keys PRIMARY KEY (tenant, key_hash);
ALTER TABLE ONLY public.mrm_bundles
    ADD CONSTRAINT pk_mrm_bundles PRIMARY KEY (tenant, fingerprint);
ALTER TABLE ONLY public.mrm_comparison_features
    ADD CONSTRAINT pk_mrm_comparison_features PRIMARY KEY (tenant, event_id, features);
ALTER TABLE ONLY public.mrm_comparisons
    ADD CONSTRAINT pk_mrm_comparisons PRIMARY KEY (tenant, event_id);
ALTER TABLE ONLY public.mrm_item_features
    ADD CONSTRAINT pk_mrm_item_features PRIMARY KEY (tenant, item_key, features);
ALTER TABLE ONLY public.mrm_items
    ADD CONSTRAINT pk_mrm_items PRIMARY KEY (tenant, item_key);
ALTER TABLE ONLY public.mrm_outbox
    ADD CONSTRAINT pk_mrm_outbox PRIMARY KEY (tenant, event_id);
ALTER TABLE ONLY public.mrm_ratings
    ADD CONSTRAINT pk_mrm_ratings PRIMARY KEY (tenant, event_id);
ALTER TABLE ONLY public.mrm_retention
    ADD CONSTRAINT pk_mrm_retention PRIMARY KEY (tenant);
ALTER TABLE ONLY public.mrm_tombstones
    ADD CONSTRAINT pk_mrm_tombstones PRIMARY KEY (tenant, user_id);
ALTER TABLE ONLY public.mrm_user_weights
    ADD CONSTRAINT pk_mrm_user_weights PRIMARY KEY (tenant, user_id, fingerprint);
ALTER TABLE ONLY public.mrm_users
    ADD CONSTRAINT pk_mrm_users PRIMARY KEY (tenant, user_id);
CREATE INDEX ix_mrm_comparisons_chosen ON public.mrm_comparisons USING btree (tenant, chosen);
CREATE INDEX ix_mrm_comparisons_rejected ON public.mrm_comparisons USING btree (tenant, rejected);
CREATE INDEX ix_mrm_comparisons_user ON public.mrm_comparisons USING btree (tenant, user_id, event_id);
CREATE INDEX ix_mrm_outbox_user ON public.mrm_outbox USING btree (tenant, user_id);
CREATE INDEX ix_mrm_ratings_item ON public.mrm_ratings USING btree (tenant, item_key);
CREATE INDEX ix_mrm_ratings_user ON public.mrm_ratings USING btree (tenant, user_id);
ALTER TABLE ONLY public.mrm_comparison_features
    ADD CONSTRAINT fk_mrm_comparison_features_event_id FOREIGN KEY (tenant, event_id) REFERENCES public.mrm_comparisons(tenant, event_id) ON DELETE CASCADE;
ALTER TABLE ONLY public.mrm_comparisons
    ADD CONSTRAINT fk_mrm_comparisons_chosen FOREIGN KEY (tenant, chosen) REFERENCES public.mrm_items(tenant, item_key);
ALTER TABLE ONLY public.mrm_comparisons
    ADD CONSTRAINT fk_mrm_comparisons_rejected FOREIGN KEY (tenant, rejected) REFERENCES public.mrm_items(tenant, item_key);
ALTER TABLE ONLY public.mrm_comparisons
    ADD CONSTRAINT fk_mrm_comparisons_user FOREIGN KEY (tenant, user_id) REFERENCES public.mrm_users(tenant, user_id);
ALTER TABLE ONLY public.mrm_item_features
    ADD CONSTRAINT fk_mrm_item_features_item_key FOREIGN KEY (tenant, item_key) REFERENCES public.mrm_items(tenant, item_key) ON DELETE CASCADE;
ALTER TABLE ONLY public.mrm_ratings
    ADD CONSTRAINT fk_mrm_ratings_item FOREIGN KEY (tenant, item_key) REFERENCES public.mrm_items(tenant, item_key);
ALTER TABLE ONLY public.mrm_ratings
    ADD CONSTRAINT fk_mrm_ratings_user FOREIGN KEY (tenant, user_id) REFERENCES public.mrm_users(tenant, user_id);
ALTER TABLE ONLY public.mrm_user_weights
    ADD CONSTRAINT fk_mrm_user_weights_user_id FOREIGN KEY (tenant, user_id) REFERENCES public.mrm_users(tenant, user_id) ON DELETE CASCADE;
